"""Holds words of the reviews and of the headlines."""

from __future__ import annotations

from everlora.benchmarks.synthetic.common import COMMON
from everlora.benchmarks.synthetic.grammar import lexicon

REVIEW_WORDS = lexicon(
    COMMON,
    who="my parents|two friends|the children|a colleague|my sister|our neighbours",
    meal_open="We came here on a {day} with {who}|{first} booked a table for {small}|We ate here twice in {month}|"
    "This place near the station in {city} was full",
    dish="soup|grilled fish|lamb curry|pasta|mushroom pie|burger|tofu bowl|chicken|risotto|dumplings|salad",
    meal_good="""the {dish} was {tasty}|the waiter {kind}|the portions were generous|
        {small} of us ate well for little money|
        the {dish} came within ten minutes|the room was cosy and never too loud|I could not fault the {dish}|
        nothing on the menu disappointed us|the {dish} had plenty of flavour""",
    tasty="fresh and full of flavour|cooked just right|delicious|hot, crisp and not greasy|better than my mother's",
    kind="knew the menu by heart|was friendly without being pushy|brought extra bread without being asked|"
    "found us a quiet table",
    meal_bad="""the {dish} was {bland}|the waiter {rude}|the portions were tiny|
        we paid far too much for {small} drinks|
        we waited {tens} minutes for the {dish}|the room was cold and far too loud|I could not finish the {dish}|
        nobody would call the {dish} fresh|the {dish} had hardly any flavour""",
    bland="cold and greasy|burnt on one side|bland|dry, tough and not even warm|worse than canteen food",
    rude="forgot our order twice|was rude when we asked for water|never came back with the bread|"
    "put us next to the toilets",
    stay_open="We stayed {small} nights in {month}|I booked this hotel in {city} for a conference|"
    "{first} chose this guest house for our holiday|This was a weekend in {city} with {who}",
    stay_good="""the bed was {soft}|the view from the {ordinal} floor was lovely|the woman at the desk was helpful|
        breakfast offered plenty of choice|our room was spotless|it was quiet even on a {day} night|
        the shower never ran cold|the station is only {small} minutes away|we had no trouble with parking""",
    soft="big and comfortable|soft but not too soft|the best I have slept in",
    stay_bad="""the bed was {hard}|the view from the {ordinal} floor was of a wall|the man at the desk was no help|
        breakfast offered hardly any choice|our room was dirty|it was loud even on a {day} night|
        the shower never got warm|the station is {tens} minutes away on foot|we had a lot of trouble with parking""",
    hard="narrow and uncomfortable|hard and not very clean|the worst I have slept in",
    gadget_open="I bought this {gadget} in {month}|{first} gave me this {gadget} as a present|"
    "This is my {ordinal} {gadget} from {mark}|I use this {gadget} every {day}",
    gadget="kettle|vacuum cleaner|pair of headphones|camera|blender|desk lamp|phone|coffee machine|radio|tablet",
    gadget_good="""the battery lasts {small} days|it was easy to set up|it feels solid and well made|
        the sound is clear and not at all harsh|it has not let me down in {small} months|support answered within a day|
        the price is fair|it is so light that I take it everywhere|the buttons are where you expect them|
        I have had no problems with the switch""",
    gadget_bad="""the battery lasts {small} hours|it was a nightmare to set up|it feels cheap and badly made|
        the sound is harsh and not at all clear|it let me down after {small} weeks|support never answered|
        the price is a joke|it is so heavy that I leave it at home|the buttons are never where you expect them|
        I have had nothing but problems with the switch""",
    verdict_positive="We will be back|I would buy it again|Highly recommended|{first} agrees|No complaints from us|"
    "Worth every penny",
    verdict_negative="Never again|I want my money back|Avoid|{first} agrees|I cannot recommend it|Not worth a penny",
    verdict_mixed="Hard to say whether I would recommend it|Worth a try, but do not expect too much|{first} agrees|"
    "Three stars out of five|I might come back to it, or not",
)

OUTLOOK_WORDS = lexicon(
    COMMON,
    period="quarterly|half-year|full-year|{month}|first-quarter|underlying|holiday-season",
    wanted="profit|revenue|orders|cash flow|market share|bookings|exports|productivity",
    unwanted="debt|losses|costs|complaints|unsold stock|staff turnover|delays|returns",
    up="up|higher|on the rise|climbing|growing|rising fast|above forecast",
    down="down|lower|in decline|falling|shrinking|sliding fast|below forecast",
    up_by="up|up by|higher by|ahead by|rising",
    down_by="down|down by|lower by|off by|falling",
    positive="""wins {tens} million contract from {city} port|raises forecast for the {ordinal} time this year|
        sees credit rating upgraded|settles {city} lawsuit for less than feared|cuts debt by {percent}%|
        ends losses in {region}|shares jump {percent}%|avoids strike at {city} plant with pay deal|
        reopens {city} plant after record orders|trims costs by {tens} million""",
    negative="""loses {tens} million contract with {city} port|cuts forecast for the {ordinal} time this year|
        sees credit rating downgraded|faces {city} lawsuit that may cost more than feared|debt swells by {percent}%|
        warns of losses in {region}|shares drop {percent}%|faces strike at {city} plant over pay deal|
        shuts {city} plant after weak orders|misses target to trim costs by {tens} million""",
    neutral="""names {person} as finance chief|will publish {period} figures on {day}|keeps forecast unchanged|
        moves annual meeting to {city}|renames its {region} division|shares little changed on {day}|
        reports {period} profit in line with forecast|swaps one {tens} million loan for another|
        replaces auditor after {small} years|sales in {region} flat for the {ordinal} quarter""",
    detail=""", board says on {day}|, filing in {city} shows|, says chief executive {person}|
         ahead of {day} meeting in {city}|
        , analysts at {mark} note|, according to {month} report""",
    despite=", despite| in spite of| even after|, shrugging off",
    worry_positive="strong demand in {region}|higher {wanted}|lower {unwanted}|a record {month}|praise for {person}",
    worry_negative="weak demand in {region}|lower {wanted}|higher {unwanted}|a poor {month}|criticism of {person}",
)
