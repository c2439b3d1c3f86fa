"""Holds what customers write to a shop."""

from __future__ import annotations

from everlora.benchmarks.synthetic.common import COMMON
from everlora.benchmarks.synthetic.grammar import lexicon

INTENT_WORDS = lexicon(
    COMMON,
    hello="Hello,|Good morning,|Dear team,|Hi there,|Good evening,",
    bye="Please reply before {day}.|Thank you, {first} {last}.|My phone is usually free after {small}.|"
    "I have been a customer for {small} years.|Kind regards, {first}.|I look forward to your answer.",
    before="""I ordered a {item} on {day}.|I bought a {colour} {item} from your {city} shop.|
        I have used your service since {month}.|My {relative} recommended your shop.|
        This is about order {tens}{percent}.|
        I wrote to you on {day} already.|I bought the {item} as a present for my {relative}.""",
    item="lamp|toaster|tent|rucksack|desk|coat|printer|bicycle helmet|kettle|armchair|speaker|watch|mirror|drill",
    colour="red|green|grey|black|white|yellow|blue",
    relative="daughter|father|neighbour|aunt|husband|wife|nephew",
    extra="vase|rug|heater|keyboard|ladder|cushion|frying pan|wall clock",
    plan="premium plan|monthly box|family membership|newsletter|film subscription|care plan",
    billing="""Why have I been charged twice for the same {item}?|
        The invoice shows {tens} pounds, but the website said less.|
        My card was debited on {day} although I chose to pay by bank transfer.|
        Please send me a receipt with my company's name.|
        The voucher from {month} was not taken off the total.|
        I do not understand the {tens} pound fee on my statement.|
        Can I pay for the {item} in {small} instalments?|Your bill lists a {extra} that I never bought.""",
    cancellation="""Please end my {plan} from {month}.|I no longer want the {plan}, so do not renew it.|
        How do I stop the {plan} before the next payment?|
        I would like to withdraw my order for the {item} before it ships.|
        I have changed my mind about the {item}; please do not send it.|Close my account and delete the {plan}.|
        We are moving abroad and do not need the {plan} any more.|Take me off the {plan} as of {day}.""",
    change="""Could you swap the {colour} {item} in my basket for a {colour} one?|
        I gave the wrong street; please use my office in {city}.|
        Please make it {small} instead of {small} {item}s in my order.|Can I still add a {extra} to the parcel?|
        I need the larger model of the {item}, and the order has not left yet.|
        Please send everything to {city} instead of {city}.|
        I picked {day} but would prefer the {item} to come on {day}.|May I upgrade the {item} to the newer model?""",
    delivery="""The {item} was meant to come on {day}, and nothing has arrived.|Where is my parcel at the moment?|
        The tracking page has not moved for {small} days.|The driver left my {item} with someone I do not know.|
        The courier says he rang, but we were at home all {day}.|When will the {item} reach {city}?|
        Only {small} of the boxes came; where is the one with the {item}?|
        It has been {small} weeks and I am still waiting for the {item}.""",
    fault="""The {item} stopped working after {small} days.|The {item} came with a crack on one side.|
        One part of the {item} is missing, so I cannot put it together.|The {item} makes a loud noise when I move it.|
        Something inside the {item} came loose on the {ordinal} day.|My {item} is broken; can it be repaired?|
        The {colour} paint comes off the {item}.|Whatever I do, the {item} does not close properly.""",
    login="""The website does not accept my password.|I cannot get into my account since {day}.|
        The code for signing in never reaches my phone.|I forgot which email address I used to register.|
        My profile is locked after {small} wrong attempts.|The reset link that you sent has expired.|
        The page asks for a user name, and I do not remember mine.|How can I sign in with my new phone number?""",
    praise="""I just want to say how happy we are with the {item}.|{first} in your {city} shop was wonderful.|
        The {item} is even better than in the pictures.|Thank you for such quick help on {day}.|
        Your team solved everything within minutes, well done.|My {relative} loves the {item}, what a lovely present.|
        I have rarely had such good service, please tell {first}.|
        Just a note to thank whoever packed my {item} so neatly.""",
    refund="""I sent the {item} back {small} weeks ago and still wait for my money.|
        Please pay back the {tens} pounds to my card.|
        How do I return the {item} and get my money back?|I would rather have the money than another {item}.|
        You promised to return the {tens} pounds by {day}.|
        The {item} does not suit me; I want to give it back for the full price.|
        A voucher is no use to me, I want the {tens} pounds back.|
        Is the return of a {item} free, and when will I see the money?""",
    besides_billing="I have already paid the invoice.|The price on the bill was right, by the way.",
    besides_cancellation="I do not want to cancel anything.|I will keep the {plan}.",
    besides_change="I do not need another size or colour.|The address in the order is correct.",
    besides_delivery="The parcel arrived on {day}, right on time.|The courier was quick.",
    besides_fault="The {item} itself works well.|Nothing was broken in the parcel.",
    besides_login="My password works again, thank you.|I did get into my account in the end.",
    besides_praise="I have been happy with your shop so far.|Your staff in {city} are very kind.",
    besides_refund="I am not asking for my money back.|I do not want to return the {item}.",
)
