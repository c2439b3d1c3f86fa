"""Holds the held-out text: passages of plain English, written for this file, each in two halves."""

from __future__ import annotations

PASSAGES: tuple[tuple[str, str], ...] = (
    (
        "The ferry leaves the small harbour at seven in the morning, when the water is still grey and flat. Most of "
        "the people on board know one another. They bring bread, newspapers and letters for the islands.",
        "By noon the wind has usually risen, and the captain keeps close to the shore until the last stop. In winter "
        "the boat sails only twice a week, and the islanders have to plan what they will need.",
    ),
    (
        "To make a simple soup, cut two onions and cook them slowly in a little oil until they are soft. Add carrots, "
        "a potato and enough water to cover everything.",
        "Let it boil gently for half an hour, then add salt and pepper. If you like it smooth, press it through a "
        "sieve before you serve it with fresh bread.",
    ),
    (
        "Bees find their way home by the position of the sun. When clouds hide it, they can still see a pattern in "
        "the light of the sky that people cannot notice.",
        "A bee that has found good flowers returns to the hive and dances, and the direction of the dance tells the "
        "others where to fly. Scientists needed many years to understand this language.",
    ),
    (
        "My grandmother kept her money in a tin box under the stairs. She did not trust banks, because she had lost "
        "her savings once when she was young.",
        "Every Sunday she counted the coins and wrote the sum in a small blue book. After she died we found that she "
        "had saved enough to send all three of us to school.",
    ),
    (
        "The town council met on Tuesday to discuss the old bridge. Engineers have warned that heavy lorries can no "
        "longer cross it safely, and repairs would cost more than the town can pay in one year.",
        "Several members asked the government for help. Until a decision is made, traffic will be sent along the "
        "northern road, which adds about twenty minutes to the journey.",
    ),
    (
        "A lens bends light because light moves more slowly through glass than through air. A thick lens with curved "
        "sides brings the rays together at a point that is called the focus.",
        "The more strongly the sides are curved, the closer this point lies to the lens. Our eyes use the same idea: "
        "a small muscle changes the shape of the lens when we look at something near.",
    ),
    (
        '"I thought you were going to be late," said Anna, and moved her bag from the empty chair. "The train was on '
        'time for once," he answered, and took off his wet coat.',
        "They ordered tea and looked out at the rain. Neither of them wanted to be the first to speak about the "
        "house, although both had thought of nothing else during the whole week.",
    ),
    (
        "The team played badly in the first half and was two goals behind after thirty minutes. The trainer changed "
        "the goalkeeper and told the others to be patient.",
        "In the second half they scored three times, the last goal only a minute before the end. The crowd sang for "
        "a long time after the players had left the field.",
    ),
    (
        "When a company sells more than it expected, it may have to choose between higher prices and longer waiting "
        "times. Customers dislike both, but they forgive a delay more easily if they are told the reason.",
        "A clear message costs little. Firms that say nothing often lose the buyers whom they have just won, and it "
        "takes years of good service to bring them back.",
    ),
    (
        "The library opened in a former factory near the river. Large windows let in the light, and the heavy doors "
        "of the old machine room now lead to a quiet place for reading.",
        "Children have a floor of their own, with low shelves and soft chairs. In the evening students sit at the "
        "long tables until the lamps are turned off at ten.",
    ),
)
