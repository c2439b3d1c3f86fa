"""Prepares texts as metrics compare them: without what does not matter, and as words of any script."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_MARK = f"[{re.escape(string.punctuation)}]"
_BEFORE_NUMBER = re.compile(r"(?:(?<![^\W_])-\$?(\.?)|(?<![^\W_])(?<!\.)\$?(\.))(?=\d)")
_OF_NUMBER = re.compile(
    r"((?<!\S)-(?=\.?\d)"  # its sign, which stands alone in front by now
    r"|(?:(?<!\S)|(?<=\s-))\.(?=\d)"  # the point of .5
    rf"|(?<=\d)(?![,_]){_MARK}(?=\d)"  # 3.5, 1/2, 10:30, 1-2
    r"|(?<=\d),(?=\d)"  # a comma, of which those of thousands go afterwards
    r"|(?<=\d)%"
    rf"|(?<=\de)-(?=\d))|{_MARK}"  # 1e-5
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")

_LETTER, _FRACTION, _MONEY = r"[^\W\d_]", "¼-¾⅐-⅞", r"(?:[$¢-¥₠-⃀]\s?)?"
_NUMBER = rf"(?:\.?\d|[{_FRACTION}∞√])"
_TERM = rf"(?:{_NUMBER}|{_LETTER}(?!{_LETTER}))"
"""How a term begins: a number, or a letter by itself, which may be a variable; longer words are words."""
_AFTER_TERM = rf"(?:(?<=[\d{_FRACTION}∞)])|(?<=(?<!{_LETTER}){_LETTER}))"
_AHEAD = rf"(?=[(\[]*[-−]?{_MONEY}[(\[]*{_TERM})"
_TAG = r"(?P<tag></?[a-z]+\d*\s*/?>)|"
_SIGNS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{_TAG}{_AFTER_TERM}\s*(?P<kept>[<>]=?)\s*{_AHEAD}",  # x < y
        rf"{_TAG}(?P<kept>(?<![-=])[<>]=?)\s*(?=[-−]?\s?{_MONEY}[(\[]*{_NUMBER})",  # <5
        rf"{_AFTER_TERM}(?:(?P<kept>[+*^])|\s+(?P<spaced>[+*^])\s+){_AHEAD}",  # x+1, x + 1
        rf"(?<=\d)(?P<kept>/)(?={_LETTER}(?!{_LETTER}))",  # 1/x
        rf"(?<=(?<!{_LETTER}){_LETTER})(?P<kept>/)(?=\d)",  # x/2
        r"(?<=[^\W_])(?P<kept>\++)(?![^\W_])",  # C++, 18+
        rf"(?<={_LETTER})(?P<kept>#)(?![^\W_])",  # C#
        rf"(?<=(?<![^\W_]){_LETTER})(?P<kept>-)(?![^\W_]|-)",  # A-
    )
)
"""Signs that make another answer; `_MINUS` has those in front."""
_MINUS = re.compile(
    rf"(?<![^\W_])[-−](?!\$?\.?\d)(?=[(\[]*{_MONEY}[(\[]*{_TERM})"  # -x, -(5), -€5, -½
    rf"|(?:^|(?<=[=(<>+*/^])|(?<=[=(<>+*/^]\s))[-−]\s+(?=[(\[]*{_MONEY}[(\[]*{_NUMBER})"  # - 5
)
_PRIVATE = "\ue000\ue001\ue002\ue003\ue004\ue005\ue006\ue007\ue008"
_PUT_ASIDE, _BACK = str.maketrans("+-*/^<>=#", _PRIVATE), str.maketrans(_PRIVATE, "+-*/^<>=#")
_MINUS_ASIDE = "-".translate(_PUT_ASIDE)

INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e"
    "\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
"""Controls that are no white space, what Unicode calls default-ignorable, and marks of annotations."""
SELECTORS, TAGS = "\ufe00-\ufe0f\U000e0100-\U000e01ef", "\U000e0020-\U000e007f"
EMOJI = "\u00a9\u00ae\u203c\u2049\u2100-\u27bf\u2900-\u2bff\u3030\u303d\u3297\u3299\U0001f000-\U0001faff"
MEANT = re.compile(
    # Persian and its neighbours: a joiner within a word. Scripts of India and around: behind the sign of no vowel.
    "(?<=[\u0620-\u08ff\ufb50-\ufdff])[\u200c\u200d](?=[\u0620-\u08ff\ufb50-\ufdff])"
    "|(?<=[\u094d\u09cd\u0a4d\u0acd\u0b4d\u0bcd\u0c4d\u0ccd\u0d4d\u0dca\u1039\u17d2])[\u200c\u200d]"
    # Emoji: families and the like, pictures instead of letters, keycaps, flags of regions.
    f"|(?<=[{EMOJI}\ufe0f])\u200d(?=[{EMOJI}])|(?<=[{EMOJI}])[\ufe0e\ufe0f]|(?<=[0-9#*])\ufe0f(?=\u20e3)"
    f"|\U0001f3f4[{TAGS}]+"
    # Chinese characters, Mongolian letters and old Hangul, which these give another shape.
    f"|(?<=[\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])[{SELECTORS}]|(?<=[\u1820-\u18aa])[\u180b-\u180d\u180f]"
    "|\u115f(?=[\u1160-\u11a7])|(?<=[\u1100-\u115f])\u1160"
)
"""Invisible characters that do change how their neighbours look, and stay; labels must differ by more than these."""
UNSPACED = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"})
"""Scripts, by the first word of their characters' names, that put no space between words."""


def normalise(text: str) -> str:
    """Lower-case, make `visible`, delete ASCII punctuation that is of no number or term, collapse white space.

    A number keeps its sign, its point, a percent sign, and any mark between two digits; commas of thousands go. A
    letter by itself may be a variable and keeps its sign, too; + < > * ^ stay between terms, and ++ or # at the end of
    a name.

    >>> normalise(" The  World. ")
    'the world'
    >>> [normalise(text) for text in ("(-5)", "3.5.", "50 %", "1/2", "$1,000", "COVID-19")]
    ['-5', '3.5', '50%', '1/2', '1000', 'covid19']
    >>> [normalise(text) for text in ("x + 1", "-x", "- 5", "-(5)", "> 5", "C++.", "well-known", "F-16")]
    ['x+1', '-x', '-5', '-5', '>5', 'c++', 'wellknown', 'f16']
    """
    text, plain = _without_marks(text), text
    while text != plain:  # what stood between a sign and its term is gone by now
        text, plain = _without_marks(text), text
    return plain


def _without_marks(text: str) -> str:
    text = _signs_aside(visible(text.lower()).strip())
    text = re.sub(r"(?<=\d)\s+%(?!\w)", "%", text)
    # A number that begins with a sign or a point stands by itself: x=-5 is "x -5", and never x5 nor x-5.
    text = _BEFORE_NUMBER.sub(lambda found: f" -{found[1]}" if found[1] is not None else " .", text)
    text = _OF_NUMBER.sub(lambda found: found[1] or "", text)
    text = collapse(_THOUSANDS.sub("", text))
    text = re.sub(r"(?<!\S)−(?=\.?\d)", "-", text)  # the minus of typesetting
    return text.replace(_MINUS_ASIDE + " ", _MINUS_ASIDE).translate(_BACK)


def visible(text: str) -> str:
    """Return a text as everybody sees it: composed (Unicode's NFC) and without invisible characters.

    >>> visible("good\u200b"), visible("cafe\u0301") == "caf\u00e9"
    ('good', True)
    """
    if text.isascii() and text.isprintable():
        return text
    meant = {place for found in MEANT.finditer(text) for place in range(*found.span())}
    plain = INVISIBLE.sub(lambda found: found[0] if found.start() in meant else "", text)
    return unicodedata.normalize("NFC", plain)


def _signs_aside(text: str) -> str:
    """Replace signs that stay by characters that are no punctuation."""
    if not any(sign in text for sign in "+-−*/^<>#"):
        return text

    def aside(found: re.Match[str]) -> str:
        groups = found.groupdict()
        return groups.get("tag") or (groups["kept"] or groups["spaced"]).translate(_PUT_ASIDE)

    text = _MINUS.sub(f" {_MINUS_ASIDE}", text)
    for pattern in _SIGNS:
        text = pattern.sub(aside, text)
    return text


def normalise_all(text: str) -> str:
    """Lower-case, delete all ASCII punctuation, that of numbers too, and collapse white space, as O-LoRA's scripts do.

    >>> normalise_all("3.5 World.")
    '35 world'
    """
    return collapse(text.lower().translate(_PUNCTUATION))


def collapse(text: str) -> str:
    """Replace each stretch of white space by one space, with none at the ends."""
    return " ".join(text.split())


def words(text: str) -> list[str]:
    """Split a text of any script into words of letters, accents and digits, in lower case and composed (NFC).

    Scripts that put no space between words are split into characters.

    >>> words("Öl, да 3.5 好的!")
    ['öl', 'да', '3', '5', '好', '的']
    """
    found: list[str] = []
    joins = False  # whether the next letter belongs to the last word
    for character in unicodedata.normalize("NFC", text.lower()):
        kind = unicodedata.category(character)[0]
        spaced = kind == "N" or unicodedata.name(character, "").partition(" ")[0] not in UNSPACED
        if kind == "M" and found:  # an accent belongs to what it stands on
            found[-1] += character
        elif kind not in "LMN":
            joins = False
        elif joins and spaced:
            found[-1] += character
        else:
            found.append(character)
            joins = spaced
    return found


def unread(metric: str, targets: Sequence[str]) -> str:
    """Say why a metric misses what tells answers like these apart, letters in most of them; empty if it does not.

    >>> unread("rouge_l", ["да"])
    "rouge_l reads letters a-z and digits, and 1 of 1 answers have others, such as 'да'; use rouge_l_unicode"
    """
    if metric not in ("rouge_l", "rouge_l_stemmed", "rouge_l_stemmed_first"):
        return ""
    other = [target for target in targets if not target.isascii() and any(map(_foreign, target))]
    if 2 * len(other) <= len(targets):
        return ""
    return (
        f"{metric} reads letters a-z and digits, and {len(other)} of {len(targets)} answers have others, such as "
        f"{other[0][:40]!r}; use rouge_l_unicode"
    )


def _foreign(character: str) -> bool:
    return character.isalpha() and not character.isascii()
