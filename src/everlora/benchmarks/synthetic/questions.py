"""Defines the task of what a question asks for, a number or a person, say; its first word alone does not decide."""

from __future__ import annotations

from everlora.benchmarks.synthetic.common import COMMON
from everlora.benchmarks.synthetic.dice import Dice
from everlora.benchmarks.synthetic.grammar import Writer, embedded, lexicon, tidy
from everlora.benchmarks.synthetic.spec import Spec

_LABELS = ("method", "number", "person", "place", "reason", "time")

_WORDS = lexicon(
    COMMON,
    start="""For a school project:|Quiz night, round {small}:|Someone asked me on {day}:|I have always wondered:|
        Our guide in {city} could not say:|A question for the historians here:|Help me settle a bet with {first}:|
        My daughter wants to know:""",
    who="painter|engineer|queen|explorer|poet|inventor|mayor|composer|chess champion|surgeon|astronaut|architect",
    made="built {work}|designed {work}|paid for {work}|first described {work}|saved {work} from the fire|"
    "restored {work}",
    make="build {work}|design {work}|pay for {work}|save {work} from the fire|restore {work}|abandon {work}",
    passive="built|opened to the public|sold|finished|destroyed by fire|rebuilt|moved|named after a {who}",
    work="""the old bridge in {city}|the first railway in {region}|the castle near {city}|
        the big telescope in {region}|
        the lighthouse at {city}|the opera house of {city}|the oldest school in {region}|the clock tower in {city}|
        the town wall of {city}|the great canal of {region}""",
    role="{who} who {made}|{who} that {city} named a square after|{ordinal} {who} to visit {region}",
    skill="""repair a {object}|draw a {object}|clean a {object} without water|make a paper model of a {object}|
        make a {object} at home|carry a {object} safely on a train|pack a {object} for a long journey""",
    brief="ten minutes|half an hour|one afternoon|two days|a single evening",
    raised="built|rebuilt|finished|moved|cleaned|repaired",
    object="wooden boat|violin|pocket watch|kite|clay pot|paper lantern|bicycle|birdhouse|silver ring|stone oven|drum",
    counted="steps lead up to {work}|people visit {work} each year|workers did it take to {make}|"
    "windows does {work} have|"
    "{who}s lived in {city} in {year}|languages did the {role} speak|letters did the {role} leave behind",
    year="1702|1755|1811|1848|1889|1903|1921|1936|1954|1967|1978|1989",
    person="""Who was the {role}?|Which {who} {made} after the flood of {year}?|What is the name of the {role}?|
        Whose idea was it to {make} in {year}?|By whom was {work} {passive} in {year}?|
        Which {who} was born when {work} was {passive}?|
        Who lived in the house where the {role} died?|What was the family called that {made} in {year}?""",
    place="""Where was the {role} born?|In which town did the {role} grow up?|What city was home to the {role}?|
        Where did the man who {made} learn his trade?|Which country did the {role} leave in {year}?|
        From where did people see {work} when it was {passive}?|What is the village called in which the {role} lived?|
        To which museum did the {role} leave a {object}?""",
    time="""When was {work} {passive}?|In what year did a {who} {make}?|
        What date did the {role} choose for the wedding?|
        Which century saw {work} {passive}?|On which day of {month} was {work} {passive}?|
        When did the {role} move to the town where {work} stands?|What time of year is best to see {work}?|
        At what hour does {work} open on a {day}?|Since when has {work} been closed?""",
    number="""How many {counted}?|What did it cost to {make} in {year}?|How old was the {role} in {year}?|
        How high is {work} at its highest point?|What is the distance between {work} and the sea?|
        What share of the people of {region} own a {object}?|How much does a {object} from {year} weigh?|
        What is the number of {who}s buried where {work} stands?|How far did the {role} walk?""",
    reason="""Why did the {role} leave in {year}?|What made the {who} {make}?|
        How come nobody in {region} owns a {object}?|
        What caused the trouble when {work} was {passive}?|For what reason did the people of {city} {make}?|
        What led the {role} to sell a {object}?|Why was {work} {passive} in {year}?|
        What was behind the plan to {make} in {year}?|
        What is the explanation for the hole in every {object}?""",
    method="""How do you {skill} in only {brief}?|What is the best way to {skill}?|
        How could a {who} {make} without machines?|
        In what way did the {role} {skill}?|By what means was {work} {raised} in only {small} days?|
        What steps are needed to {skill} when you are a beginner?|How can I learn to {skill} before {day}?|
        How was {work} {raised} without any iron?|What technique lets a {who} {skill}?""",
)


_EARLIER = (
    'Everyone knew the answer to "[text]" but not to this:',
    'After "[text]" comes the next question:',
    'Skip "[text]" and take this one:',
)


def _question(dice: Dice, label: str) -> str:
    write = Writer(dice, _WORDS)
    question = tidy(write.one(label))
    if dice.chance(0.35):
        other = dice.pick([kind for kind in _LABELS if kind != label])
        earlier = embedded(dice.pick(_EARLIER), write.one(other))
        return f"{earlier} {question}"
    return f"{tidy(write.one('start'))} {question}" if dice.chance(0.4) else question


QUESTIONS = Spec(
    name="questions", labels=_LABELS, instruction="Decide what kind of answer this question asks for.", draw=_question
)
