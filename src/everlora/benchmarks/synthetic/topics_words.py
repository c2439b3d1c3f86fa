"""Holds words of the topic tasks, which share some on purpose: clubs are bought, vaccines are voted on."""

from __future__ import annotations

from everlora.benchmarks.synthetic.common import COMMON
from everlora.benchmarks.synthetic.grammar import lexicon

SPORTS = lexicon(
    club="{city} Rovers|{city} United|{city} Hawks|{city} Wanderers|the {city} Bears|{city} Athletic",
    game="cup final|league match|semi-final|opening game|derby|qualifier|friendly",
    event="marathon|{tens}-kilometre road race|women's singles|national rowing title|downhill race|400 metres final|"
    "heptathlon|sprint stage",
    player="striker|goalkeeper|captain|midfielder|point guard|fly-half|winger",
    injury="a knee injury|a torn hamstring|a broken wrist|concussion|a back problem",
    sports_lead="""{club} beat {club} by {small} points in the {game} on {day}|
        {person} won the {event} in {city} after a late attack on the final climb|
        {club} {player} {person} will miss the rest of the season with {injury}|
        {club} agreed to sell {player} {person} to {club} for {tens} million|
        {person} broke the national record in the {event} at {city} on {day}|
        A goal in the last minute gave {club} a draw against {club} in the {game}|
        {club} dismissed head coach {person} after {small} defeats in a row|
        {player} {person} scored twice as {club} came from behind to win the {game}|
        Rain stopped play in the {game} between {club} and {club} on {day}|
        {person} failed a drugs test before the {event} and has been banned for {small} months|
        {club} will start the season without {player} {person}, who is recovering from {injury}|
        Fans of {club} voted against a move to a new stadium outside {city}""",
    sports_more="""The home side had {small} shots on target and missed a penalty|
        The coach praised a young team that never stopped running|It was the {ordinal} win of the season|
        Supporters sang long after the final whistle|The return leg is on {day}|
        The referee added {small} minutes for injuries|The athlete trained at altitude all winter|
        The result lifts the side to {ordinal} place in the table""",
)

BUSINESS = lexicon(
    business_lead="""{company} reported a {percent} per cent rise in quarterly profit on {day}|
        Shares in {company} fell {percent} per cent after the firm cut its forecast|
        {company} will close {small} shops in {region} and move sales online|
        {company} agreed to buy rival {company} for {tens} million|
        {company} named {person} as chief executive from {month}|
        The owner of {city} Rovers sold a stake in the club to {company}|
        Drug maker {mark} Pharma gained {percent} per cent after its vaccine won approval|
        {company} will hire {tens} engineers for a battery plant near {city}|
        Food prices in {region} rose {percent} per cent in {month} as supply stayed tight|
        {company} signed a sponsorship deal with the {city} marathon|
        Staff at {company} will vote on a pay offer on {day}|
        A bank in {city} lent {company} {tens} million to refit its hospital cleaning arm""",
    business_more="""Analysts had expected a smaller figure|The board will pay a higher dividend|
        Investors welcomed the plan|Rivals have also raised their prices|Orders from {region} were strong|
        The company blamed weak demand and a rise in costs|The deal needs approval from the regulator|
        About {tens} jobs depend on the site""",
)

POLITICS = lexicon(
    party="Liberal|Green|Conservative|Labour|Reform|Unity",
    bill="housing|school meals|pensions|tobacco|water|broadcasting|data|clean air",
    politics_lead="""Lawmakers in {city} voted on {day} to delay the {bill} bill|
        {party} leader {person} promised to cut taxes for small firms|
        Health minister {person} resigned on {day} after {small} weeks in office|
        The {party} party lost its majority in {city} after a close election|
        The mayor of {city} refused to sign a deal over the new stadium|
        Senator {person} called for an inquiry into spending on hospitals|
        The government will ban the sale of {ban} from {month}|
        A court in {city} ruled that the {bill} law breaks the constitution|
        Ministers from {small} countries met in {city} to discuss borders and trade|
        The {party} party chose {person} as its candidate for mayor of {city}|
        Opposition members walked out of a debate on the {bill} bill|
        The president will visit {region} to sign a treaty on fishing""",
    ban="disposable cups|vaping products|lead paint|single-use batteries|betting adverts",
    politics_more="""The vote was {tens} to {small}|Polls suggest a tight race in {region}|
        A spokesman said the plan would cost {tens} million|The opposition called the decision a mistake|
        Campaigners gathered outside the town hall|The {party} group will decide on {day}|
        The measure still needs the support of the upper house|Turnout was the lowest for {small} years""",
)

SCIENCE = lexicon(
    science_lead="""Researchers at the University of {city} found that {finding}|
        A team in {city} has built {device} that works without batteries|
        Astronomers in {region} spotted {spotted} on {day}|
        Fossils found near {city} suggest that {fossil}|
        Chemists led by {person} turned {waste} into fuel in a single step|
        A probe launched in {month} sent back its first pictures of {body}|
        Geologists drilled {small} kilometres below {region} to study old rocks|
        Physicist {person} won a prize for work on {field}|
        A survey of {animal} in {region} shows that numbers fell {percent} per cent|
        A computer model from {city} predicts how far {waste} drifts at sea|
        Engineers tested running shoes made of {waste} on athletes in {city}|
        The government will fund a telescope near {city} for {tens} million""",
    finding="crows remember faces for years|bees prefer warm flowers|octopuses dream|trees share water through roots|"
    "glass keeps moving for decades|players react faster to sound than to light|bats hunt by the noise of rain",
    device="a sensor|a tiny robot|a thermometer|a hearing aid|a clock",
    spotted="a faint comet|two merging stars|water on a distant planet|an unusual burst of radio waves",
    fossil="early whales could walk|some dinosaurs slept in groups|forests once grew on the ice|"
    "birds lost their teeth twice",
    waste="plastic waste|coffee grounds|seaweed|old tyres|sawdust",
    body="the moons of Saturn|a small asteroid|the far side of the moon|the poles of Mars",
    field="magnets|light in very cold gases|the age of galaxies|quantum clocks",
    animal="puffins|beetles|river otters|wild bees|seals",
    science_more="""The results appear in a journal this week|The team repeated the experiment {tens} times|
        Other scientists said the sample was small|The measurements took {small} years|
        The work may help to explain how climate changed|The instrument was cooled almost to absolute zero|
        The group will publish its data in {month}|Nobody had predicted such an effect""",
)

HEALTH = lexicon(
    illness="flu|measles|asthma|diabetes|whooping cough|high blood pressure|hay fever",
    health_lead="""Doctors in {city} urged parents to check for signs of {illness}|
        Cases of {illness} in {region} rose {percent} per cent in {month}|
        A trial of {tens} patients found that {care} eases {illness}|
        Hospitals in {city} cancelled {tens} operations because of a shortage of nurses|
        A clinic in {city} began to offer free tests for {illness} on {day}|
        A new vaccine against {illness} protected {share} per cent of children in a study|
        Dentists in {region} say that waiting lists have doubled since {month}|
        Surgeon {person} led the first operation of its kind in {city}|
        Former {city} United captain {person} is in hospital with heart trouble|
        Pharmacies in {region} are short of medicine for {illness}|
        Nurses voted to strike for {small} days over pay and night shifts|
        Older people who {habit} are less likely to develop {illness}, doctors say""",
    care="gentle exercise|a daily walk|singing|an old painkiller|a simple breathing device|yoga",
    habit="swim twice a week|sleep eight hours|play team sports|eat more fibre|walk to the shops",
    health_more="""Patients are asked to call before they come|Most people recover within {small} days|
        The side effects were mild|Experts advise washing hands and staying at home|
        The ward will reopen on {day}|Symptoms include fever and a sore throat|
        The health service said it was hiring more staff|People over {age} can book an appointment from {day}""",
)

NEWS_WORDS = lexicon(
    COMMON,
    SPORTS,
    BUSINESS,
    POLITICS,
    SCIENCE,
    HEALTH,
    plain="""More details are expected on {day}|{person} said the news came as a surprise|
        The announcement was made in {city}|It is the {ordinal} such case this year|
        Local people had waited for {small} months|"We always knew it would be close," said {person}""",
    link="""It came on the day that [aside]|The news was overshadowed when [aside]|
        In {city}, meanwhile, people were talking of something else: [aside]|Hours earlier, [aside]""",
    beside="""Also on this page: [aside]|Our story of {day} was another: [aside]|Elsewhere in brief: [aside]""",
    sports_aside="the local team lost its {game}|the {city} marathon closed the roads|fans filled the stadium",
    business_aside="shares fell sharply|a large employer cut {tens} jobs|fuel prices rose again",
    politics_aside="the mayor resigned|the election campaign began|ministers argued about taxes",
    science_aside="scientists launched a satellite|researchers described a new kind of beetle|a comet passed overhead",
    health_aside="hospitals warned of a flu outbreak|nurses went on strike|doctors asked for blood donors",
)
