"""Holds words of short messages between people who know each other, and of letters between people who do not."""

from __future__ import annotations

from everlora.benchmarks.synthetic.common import COMMON
from everlora.benchmarks.synthetic.grammar import lexicon

_SHARED = lexicon(
    COMMON,
    thing="report|budget|spare key|contract|guest list|timetable|poster|invoice|first-aid box|seating plan",
    meeting="meeting|workshop|rehearsal|call|interview|training day|book club|picnic",
    where="room {tens}|the library|the canteen|the office in {city}|the town hall|"
    "the meeting room on the {ordinal} floor",
    who="{first}|my manager|the caretaker|our guest from {city}|the new colleague",
)

REPLY_WORDS = lexicon(
    _SHARED,
    hi="Hi|Dear|Hello|Morning",
    comma=",",
    bye="Thanks, {first}.|Best wishes, {first}.|See you on {day}.|Have a good weekend.|{first}",
    news="""The {meeting} is on {day} at {small} in {where}.|{who} sent the {thing} this morning.|
        I put the {thing} on your desk.|We are now {small} people for the {meeting}.|
        {who} asked about the {thing} again.|
        The {meeting} took longer than we thought.|I talked to {who} about the {meeting}.|
        The {thing} for {city} is ready.|
        {who} is away until {day}.|We moved the {meeting} to {where}.|
        There was a question about the {thing} on {day}.""",
    asks="""Can you bring the {thing} on {day}?|Please let me know whether {day} suits you.|
        Do you know where the {thing} is?|
        Tell me by {day} which {meeting} you prefer.|Would {small} o'clock work for you and {who}?|
        I need to hear from you before I send the {thing}.|Who else should see the {thing}?|
        I wonder if you have room for {who} in your car; drop me a line.|Could you confirm that you got the {thing}?|
        Just say yes or no to the {thing}, so that I can tell {who}.|What should I tell {who} about the {thing}?|
        Are you free on {day} for the {meeting}, or shall I ask {who}?|
        Send me a short note when you have read the {thing}.|
        I cannot book {where} until you tell me how many of you come.""",
    tells="""No need to answer, I only wanted you to know.|You asked where the {thing} was: {who} had it.|
        I will let you know whether {day} suits {who}.|Please read the {thing} before {day}.|
        Who would have thought that {who} would find the {thing}?|I will bring the {thing} on {day}.|
        Everything is settled with {who}, so you can relax.|Thank you for confirming that you got the {thing}.|
        Remember to lock {where} after the {meeting}.|{who} wondered if you were ill, but I explained.|
        Can you believe it, {who} lost the {thing} again!|Your answer about the {thing} was all I needed.|
        This is just to confirm {day} at {small} o'clock.|I have told {who} which {meeting} you prefer.|
        Please bring the {thing} as agreed.""",
)

REGISTER_WORDS = lexicon(
    _SHARED,
    plain="""The {meeting} begins at {small} in {where}.|{who} has the {thing}.|The {thing} is ready on {day}.|
        There are {small} places left for the {meeting}.|The {meeting} on {day} will take {small} hours.|
        {who} will bring the {thing} to {where}.|We met in {where} in {month}.|
        The train from {city} was {tens} minutes late.|
        Please send the {thing} before {day}.|{who} cannot come to the {meeting}.|Thank you for the {thing}.|
        The {thing} from {month} is in {where}.""",
    formal="""I would be grateful if you could return the {thing} by {day}.|
        We regret to inform you that the {meeting} has been postponed.|
        Please do not hesitate to contact {who} should you require the {thing}.|
        I am writing with regard to the {meeting} in {city}.|
        It is with pleasure that we invite you to the {meeting}.|
        Kindly note that the {thing} must be submitted by {day}.|
        We apologise for any inconvenience this may cause.|Guests are requested to proceed to {where}.|
        I remain at your disposal for further questions.|Might I ask you to forward the {thing} to {who}?|
        Your application for the {meeting} has been received.|The committee wishes to express its thanks to {who}.|
        We trust that {where} will meet your requirements.|Enclosed please find the {thing} for {month}.|
        Attendance at the {meeting} is obligatory for all members.""",
    informal="""Can you chuck me the {thing} before {day}?|Sorry, the {meeting}'s off, long story.|
        Just give {who} a shout if you need the {thing}.|So, about that {meeting} in {city}, what a mess.|
        Fancy coming along to the {meeting}?|Don't forget the {thing}, yeah?|Gonna be a bit late, grab me a seat.|
        Everyone's hanging out in {where} again.|Ask me whatever, I'm around.|Mind sending {who} the {thing}?|
        Got your {thing}, cheers.|{who} was a total star, honestly.|Reckon {where} is big enough for us lot?|
        Here's the {thing} from {month}, hope it's okay.|You've got to come to the {meeting}, no excuses.""",
)
