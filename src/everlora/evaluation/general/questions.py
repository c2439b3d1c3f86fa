"""Holds the zero-shot probe: questions of common knowledge, written for this file, the right answer first."""

from __future__ import annotations

_TABLE = """
What is the capital of France? | Paris | Madrid | Berlin | Rome
What is the capital of Japan? | Tokyo | Seoul | Beijing | Bangkok
What is the capital of Italy? | Rome | Athens | Vienna | Lisbon
What is the capital of Egypt? | Cairo | Tunis | Nairobi | Baghdad
On which continent is Brazil? | South America | North America | Central Asia | Western Europe
On which continent is Kenya? | Africa | Europe | Asia | Australia
Which ocean lies between Europe and America? | Atlantic | Pacific | Indian | Arctic
Which language do most people in Mexico speak? | Spanish | French | German | Italian
What colour is the sky on a clear day? | blue | green | red | brown
What colour is fresh snow? | white | black | yellow | purple
What colour is fresh grass? | green | pink | black | orange
What colour do you get from blue and yellow paint? | green | red | white | grey
How many days are in a week? | seven | five | nine | twelve
How many months are in a year? | twelve | ten | eight | twenty
How many legs does a spider have? | eight | four | six | two
How many legs does a dog have? | four | three | eight | five
How many minutes are in an hour? | sixty | forty | ninety | thirty
What is two plus three? | five | four | seven | nine
What is ten minus four? | six | two | eight | three
What is three times three? | nine | twelve | five | ten
Which animal says meow? | cat | dog | cow | duck
Which animal gives us milk? | cow | lion | snake | eagle
Which animal gives us wool? | sheep | horse | frog | shark
Which animal can fly? | bird | horse | elephant | rabbit
Where do fish live? | water | trees | deserts | nests
What do bees make? | honey | milk | bread | silk
What do plants need to grow? | light | paint | glass | music
What does ice become when it melts? | water | stone | sand | wood
What falls from clouds? | rain | rocks | leaves | coins
What gas do people need to breathe? | oxygen | helium | neon | methane
What is the opposite of hot? | cold | wet | loud | fast
What is the opposite of big? | small | heavy | tall | new
What is the opposite of day? | night | week | morning | light
What is the opposite of open? | closed | wide | empty | broken
Which season is the coldest? | winter | summer | spring | autumn
Which planet do we live on? | Earth | Mars | Venus | Saturn
What does the Earth move around? | the Sun | the Moon | the North Star | the planet Mars
What shines in the sky at night? | the moon | the sea | the road | the grass
What do you use to cut paper? | scissors | spoon | pillow | bottle
What do you use to write a letter? | pen | hammer | ladder | shoe
What do you wear on your feet? | shoes | gloves | glasses | a scarf
Where do you sleep? | in a bed | in a cup | in a box | in a book
Where do you go to borrow books? | library | bakery | garage | airport
Who teaches children in a school? | teacher | butcher | pilot | sailor
Who flies an aeroplane? | pilot | nurse | farmer | baker
Who takes care of sick people? | doctor | painter | driver | singer
With which part of the body do we hear? | ears | knees | hands | hair
With which part of the body do we see? | eyes | feet | elbows | teeth
"""


def _read(line: str) -> tuple[str, tuple[str, ...]]:
    """Return the question and the answers of a line of the table."""
    question, *options = (part.strip() for part in line.split("|"))
    return question, tuple(options)


QUESTIONS: tuple[tuple[str, tuple[str, ...]], ...] = tuple(_read(line) for line in _TABLE.strip().splitlines())
"""Each question and its four answers."""
