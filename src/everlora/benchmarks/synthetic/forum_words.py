"""Holds words of the forum task; half of its labels are those of the news task, but the kind of text is another."""

from __future__ import annotations

from everlora.benchmarks.synthetic.common import COMMON
from everlora.benchmarks.synthetic.grammar import lexicon

FORUM_WORDS = lexicon(
    COMMON,
    hello="Hi all.|Hello everyone.|New here.|Quick question.|Probably a silly question.|Hi, {first} here.|"
    "I have searched but found nothing.|Long-time reader, first post.",
    bye="Thanks in advance!|Any advice is welcome.|Cheers, {first}.|I would rather not spend more than {tens} pounds.|"
    "My {relative} says it does not matter.|I need an answer before {day}.|Please keep it simple.",
    earlier="""My last thread was "[text]" and this is something else.|
        You all helped me with "[text]" so here is another.|
        Unlike the person who asked "[text]" I have a simple problem.""",
    relative="brother|neighbour|flatmate|sister|uncle|colleague",
    sports_ask="""How long should I rest after a {sport} match when my knees hurt?|
        Why does the referee allow {small} substitutes in a {team_sport} friendly but not in the league?|
        Is it worth buying {kit} if I only play {sport} on {day}s?|
        How do I train for a {tens}-kilometre race when I can run {small} at most?|
        Our {team_sport} team keeps losing in the last minutes, so what drills build stamina?|
        Can a beginner of {age} join a {sport} club in {city}?|
        Who do you think will win the {sport} final in {city} this {month}?|
        Does stretching before {sport} really prevent injuries, or is that a myth?|
        What should I eat before a {sport} match that starts at {small}?""",
    sport="football|tennis|hockey|rugby|badminton|rowing|basketball|cricket|climbing|volleyball",
    team_sport="football|hockey|rugby|basketball|handball",
    kit="expensive shoes|a carbon racket|knee pads|a heart-rate strap|a mouth guard",
    sports_life="I play {sport} on {day}s|I watched the {sport} final with my {relative}|"
    "I am training for the {city} marathon",
    science_ask="""Why does {thing} look {colour} even though {why}?|
        If light has no mass, how can gravity near {body} bend it?|
        How do scientists know the age of {aged} so exactly?|
        What would happen to {body} if the sun lost {percent} per cent of its mass?|
        Is there an experiment for {tens} school children that shows how {force} works?|
        Why does salt make {cold} melt faster, and does sugar do the same?|
        Do {creature} really feel {force}, or did the study in {city} get it wrong?|
        What is the difference between a theory and a law when we talk about {force}?|
        How fast would I have to run on {body} to stay in orbit?""",
    thing="the sky|the sea|old ice|the moon at dusk|smoke|a soap bubble",
    colour="blue|grey|red|green|pale|orange",
    why="air has no colour|the water in my glass is clear|the light is white|it is made of the same stuff",
    aged="a rock|the earth|a fossil|a star|an old tree|a cave painting",
    body="the moon|Mars|Jupiter|an asteroid|a neutron star",
    force="magnetism|gravity|friction|air pressure|static electricity|heat",
    creature="pigeons|sharks|bees|sea turtles|plants|bacteria",
    cold="ice|snow|frost|frozen soil",
    science_life="I am reading a book about {force}|I helped my {relative} with physics homework|"
    "we saw {body} through a telescope",
    business_ask="""Do I need to register for tax if my {shop} earns less than {tens} pounds a week?|
        How do I set a price for {goods} when my rivals sell at a loss?|
        A customer in {city} has not paid an invoice for {small} weeks, so what are my options?|
        Is it better to lease or to buy {asset} for a new {shop}?|
        How much should I pay the {ordinal} person I hire for my {shop}?|
        Should I take a loan at {percent} per cent to buy out my partner in the {shop}?|
        What belongs in a business plan for a {shop} in {city}?|
        Is it normal that an investor asks for {percent} per cent of a {shop} that sells {goods}?|
        How do you find suppliers of {goods} who accept small orders?""",
    shop="bakery|bike workshop|software start-up|sports shop|guest house|food truck|print shop|hair salon",
    goods="candles|cakes|football shirts|phone cases|used laptops|microscopes|spices|maps",
    asset="a van|an oven|a server|a till|a laser cutter",
    business_life="I run a small {shop}|I have just left my job in sales|my {relative} and I sell {goods} online",
    computing_ask="""My laptop freezes whenever I open {program}, so where do I start looking?|
        How do I move {tens} gigabytes of photos from {place} to a new drive?|
        Is it safe to store passwords in {program}, or is a notebook better?|
        Which is faster for a {shop} website, a rented server or {place}?|
        Why does my router lose the connection every {small} minutes?|
        Can I run {program} on a computer with only {small} gigabytes of memory?|
        How can I recover a file that {program} deleted on {day}?|
        What keyboard would you buy for {tens} pounds if you type recipes all day?|
        How do I write a script that renames {tens} files at once?""",
    program="the browser|my mail client|a spreadsheet|the video editor|a backup tool|the photo app",
    place="my old phone|the cloud|a memory card|the office network",
    computing_life="my laptop is {small} years old|I am learning to program|I work with spreadsheets all day",
    cooking_ask="""Why does my {dish} turn out dry although I bake it for only {tens} minutes?|
        Can I replace {food} with {food} in a {dish}, or will the taste suffer?|
        How long can I keep cooked {food} in the fridge before it goes off?|
        What goes well with {dish} when {small} guests do not eat meat?|
        Is a heavy pan from {city} really better for frying {food}?|
        How do you stop {food} from sticking to the pan at high heat?|
        My {relative} is allergic to {food}, so how can I thicken a {dish}?|
        What is the science behind resting {food} before you slice it?|
        How much {food} do I need for a {dish} that feeds {tens}?""",
    dish="lentil stew|apple cake|fish pie|mushroom risotto|sourdough loaf|vegetable curry|omelette|chocolate tart",
    food="butter|rice|chicken|eggs|flour|onions|cream|beans|salmon|potatoes|almonds",
    cooking_life="I burnt a {dish} last night|I am cooking for {small} friends|I finally bought a decent oven",
    travel_ask="""How early should I be at the airport in {city} on a {day} in {month}?|
        Is {small} days enough for {city}, or should I add a trip to the coast?|
        Which train pass is cheapest from {city} to {city} with {small} bags?|
        Do I need a visa to change planes in {city} if I stay {small} hours?|
        Can you suggest a quiet hostel in {city} that has a kitchen?|
        Is it safe to hire a car in {region} in {month}?|
        Where can I leave my luggage in {city} while I watch a football match?|
        What should I pack for {small} weeks of walking in {region}?|
        Is the night bus from {city} to {city} worth the money?""",
    travel_life="I am flying to {city} next week|we spent {small} days in {region}|my train from {city} was late",
)
