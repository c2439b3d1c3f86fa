"""Holds names, places and dates that all grammars share."""

from __future__ import annotations

from everlora.benchmarks.synthetic.grammar import lexicon

COMMON = lexicon(
    first="""Maya|Tomas|Priya|Oliver|Amara|Lucas|Ingrid|Yusuf|Chloe|Mateo|Hana|Daniel|Leila|Patrick|Sofia|Kofi|Elena|
        Marcus|Noor|Henrik|Grace|Rafael|Mei|Samuel|Anya|Joseph|Clara|Dmitri|Ruth|Omar|Beatriz|Simon|Aisha|Felix|Nina|
        Victor|Julia|Callum|Irene|Tariq""",
    last="""Okafor|Bennett|Larsen|Mehta|Novak|Fraser|Silva|Tanaka|Hughes|Moreau|Kaplan|Osei|Rossi|Doyle|Vargas|
        Lindqvist|
        Chowdhury|Marsh|Petrov|Walsh|Adeyemi|Keller|Hassan|Brooks|Nakamura|Ferreira|Whitlock|Duarte|Sinclair|Bauer|
        Castillo|Engel|Ncube|Pryce|Romano|Sharma|Tillman|Weaver|Yilmaz|Zeller""",
    person="{first} {last}",
    city="""Leeds|Porto|Toronto|Nairobi|Gdansk|Lyon|Bristol|Osaka|Denver|Turin|Adelaide|Bergen|Accra|Seville|Cork|
        Busan|
        Rotterdam|Lima|Chicago|Glasgow|Tallinn|Cape Town|Vienna|Pune|Montreal|Dresden|Auckland|Antwerp|Izmir|Boston""",
    region="""Scotland|northern Italy|Kenya|Western Australia|the Baltic states|southern Spain|Ontario|Wales|Brittany|
        central Chile|Norway|the Midlands|Bavaria|Ghana|Tasmania""",
    day="Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday",
    month="January|February|March|April|May|June|July|August|September|October|November|December",
    small="two|three|four|five|six|seven|eight|nine|ten|twelve",
    tens="15|20|25|30|40|45|60|75|80|90|120|150",
    share="40|55|60|65|70|80|85|90",
    age="19|24|31|38|45|52|60|67",
    percent="2|3|4|5|6|7|8|9|11|12|14|15|17|18|21|23|26|31",
    ordinal="first|second|third|fourth|fifth",
    trade="Foods|Energy|Motors|Logistics|Textiles|Software|Airlines|Pharma|Retail|Insurance|Steel|Media|Homes|"
    "Chemicals",
    mark="""Northgate|Alder|Brightwell|Corvane|Delmar|Eastbrook|Fenwick|Galloway|Harrowby|Ironbridge|Juniper|Kestrel|
        Lumen|Marlow|Novara|Orchard|Pellworm|Quarrie|Redfern|Solway|Tamarind|Vantor|Westmoor|Yarrow""",
    company="{mark} {trade}",
)
