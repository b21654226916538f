"""The Unicode names of characters as documents: sixteen characters that follow each other, the words of their names.

Names never change once they are given, and Python keeps those of Unicode 3.2 (`unicodedata.ucd_3_2_0`) beside its
newest, so that the corpus is the same everywhere.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from typing import Any

import numpy as np

from zoo.datasets import captions
from zoo.datasets.data import Card
from zoo.datasets.splits import SPLITS, Splits, split_rows

__all__ = ["CARD", "WORDS", "documents", "read"]

Array = np.ndarray[Any, Any]

# Written down, so that a word has one column: those of three letters or more that at least three documents have, but
# for 'and', 'for', 'the' and 'with'.
_WORDS = """
abbreviation abkhasian above accent acute ain alef ali all almost alpapraana alpha alta ampersand ang angle ano
anticlockwise anusvara apl apostrophe approximately arabic arc archaion armenian arrow arrowhead asterisk avagraha
backslash bar barb barree bee beh below ben bengali beside bet beta between bha big bird black black-letter block
bold bopomofo bottom bow box bracket braille breve bridge broken bullet but byzantine bzhi c-simplified can canadian
candra candrabindu capital caret caron carrier cedilla centre cha char character che check chee cherokee chi chieuch
cho choseong chu cieuc circle circled circumflex cjk clef cliff clockwise closed colon combining comma commercial
composition contains corner cross curl curly currency curved cyrillic dad dagesh dal dalet damma dammatan dash
dashed dasia dda ddha dee degree delta descender deseret devanagari dha diaeresis diagonal dialytika diamond
differential digit digraph dingbat dipli divide division dje does dollar dot dotless dots dotted double double-line
double-struck down downwards dragon drawings dyo dza dze earth east eat ech eight eighteen eighth element eleven
ellipsis empty end eng epsilon equal equals equivalent esh eta eth ethiopic exclamation exo ezh face falling farsi
fatha fathatan feh fifteen fifty fill filler final fire fish five flat foot form four fourteen fraction fraktur from
fthora full fullwidth functional gaa gaf gali gamma georgian gha ghain ghe gimel glottal gorgon grass grave
greater-than greek gujarati gurmukhi haa hah half halfwidth hamza hand hangul harpoon head heart heavy hebrew heh
hie hieuh high hiragana hook horizontal horn hour hundred hyphen hyphen-minus identical ideograph ideographic ieung
image indicator ini initial inside integral intersection inverted iota isolated ison italic iteration jee jeem jha
joined joiner jongseong jot jungseong kaf kai kan kangxi kannada kappa kapyeounmieum kapyeounphieuph kapyeounpieup
kasra kasratan katakana katakana-hiragana kato keh keheh kentima kentimata key kha khah khieukh khmer kho kirghiz
kiyeok kiyeok-sios klasma koronis lam lamda lame lamed lao large latin left left-pointing leftwards leg length
less-than letter lha ligature light line lje lla llla logical long low lower lozenge macron madda mahaapraana mai
maksura malayalam man manchu marbuta mark mathematical measured medial medium meem mem men mgo middle mieum
mieum-pieup minus modifier mongolian monospace moon multimap multiplication musical myanmar n-ary naa nabla name
naskapi negative neither neo nga ngo nieun nieun-cieuc nieun-hieuh nieun-tikeut nine nineteen nje nna no-break noon
nor normal north not notation note now nukta number numeral nun nya nyi nyis nyo ogonek old omega omicron one open
opening operator original oriya ornament ottava outlined over overbar overlay overline oxia pansios paragraph
parakalesma paraklitiki parallel parenthesis parenthesized partial patah pattern pee peh peheh percent perispomeni
pha phi phieuph pho pieup pieup-sios pinwheel plus point pointed pointing postal precedes prime product
prosgegrammeni psi psili punctuation qaa qaf quad quadrant quadruple quarter question quotation raa radical rap reh
repeat resh rest retroflex reverse reversed rha rho rieul rieul-hieuh rieul-kiyeok rieul-mieum rieul-phieuph
rieul-pieup rieul-sios rieul-thieuth right right-pointing rightwards ring rising roman rotated rounded rra rtags
runic sad sans-serif sanyaka sayisi schwa script second section see seen semicolon separator serifs set seven
seventeen sha shadda shadowed sharp she sheen shell shi shin sho short shu sibe sigma sign silk similar simplified
single single-line sinhala sios sios-kiyeok sios-pieup sios-tikeut six sixteen sixteenth slanted slash small soft
solidus sound south space square squared ssa ssangcieuc ssangieung ssangkiyeok ssangpieup ssangsios ssangtikeut star
stem stile stop stroke strokes subjoined subset succeeds sukun summation sun sung superscript superset syllabics
syllable symbol syriac tack tah tail tam tamil tau tav tcheh tcheheh teardrop-spoked tee teh telegraph telephone
telugu ten tha thaa thaana thai thal than thee theh theta thi thieuth thirteen thirty tho thorn thousand three
through tibetan tick tie tikeut tilde times todo tone tonos top tortoise tree triangle triple tromikon tsa tse tsi
tso tsu tta tteheh ttha turned turnstile twelve twenty two two-headed underbar union upper upsilon upwards varia
variation vav vee vertical vew virama visarga vocalic voiced vowel vrachy wae walk water wave wavy waw weo west
west-cree white wind wynn xeh y-cree yaa yae yang yee yeh yeo yeorinhieuh yeru yesieung yod ypogegrammeni yya zah
zain zee zero zeta zha zhe zhee zigzag
"""
WORDS = tuple(_WORDS.split())
"""The vocabulary, by column."""
LAST, LENGTH, LEAST = 0x30000, 16, 10
"""One more than the last character; characters of a document; words that it has at least."""
NUMBERED = ("CJK UNIFIED", "CJK COMPATIBILITY IDEOGRAPH", "HANGUL SYLLABLE")
"""Beginnings of names that are only numbers, or sounds."""

CARD = Card(
    "unicode-names",
    "Counts of the words in the Unicode names of sixteen characters that follow each other, a row each: scripts, "
    "arrows, box drawings, musical and mathematical signs. Unicode 3.2 without ideographs and Hangul syllables; words "
    "of three letters or more that three rows have; random split with seed 0.",
    shape=(len(WORDS),),
    support="integer",
    splits=dict(zip(SPLITS, (682, 85, 85), strict=True)),
    source="inside Python (unicodedata.ucd_3_2_0)",
    licence="Unicode terms of use; CPython's copy is under the PSF licence",
    names=WORDS,
)


def documents() -> Array:
    """Counts (N, words), the characters' order."""
    column = {word: place for place, word in enumerate(WORDS)}
    counts: dict[int, Array] = defaultdict(lambda: np.zeros(len(WORDS), np.int64))
    for code in range(LAST):
        name = unicodedata.ucd_3_2_0.name(chr(code), "")
        if not name.startswith(NUMBERED):
            for word in captions.words(name):
                if word in column:
                    counts[code // LENGTH][column[word]] += 1
    return np.stack([row for row in counts.values() if row.sum() >= LEAST])


def read() -> Splits:
    """The documents, shared out."""
    x = documents()
    return Splits({split: x[rows] for split, rows in split_rows(len(x)).items()})
