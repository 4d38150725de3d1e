"""What the people of the demo network are called, and what they write: composed at random from lists of words."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Mapping, Sequence
from random import Random
from typing import NamedTuple, TypeVar

# First and last names that go together. An underscore is a space within a name.
_NAMES = """
Abeni Adunni Babajide Chiamaka Emeka Ifeoma Kelechi Ngozi Tunde Yetunde / Adebayo Adeyemi Balogun Eze Nwosu Obi Okafor
Akua Ama Efua Kofi Kojo Kwabena Kwame Yaa Yaw / Acheampong Addo Agyeman Asante Boateng Mensah Osei Owusu
Abebe Almaz Dawit Hirut Mekdes Selam Tadesse Yonas / Alemu Bekele Desta Girma Haile Tesfaye Wolde
Amina Fatuma Juma Makena Mwangi Njeri Otieno Wanjiru / Achieng Kamau Karanja Kimani Kiprono Odhiambo Wafula
Ayanda Lerato Nandi Sipho Thabo Thandi Zanele / Dlamini Khumalo Mokoena Ndlovu Nkosi Sithole Zulu
Amal Farid Hana Karim Layla Nour Omar Rania Samir Yasmin Youssef / Abdallah Farouk Haddad Khalil Mansour Nasser Saleh
Arash Azadeh Dariush Farhad Mina Nasrin Omid Parisa Roya Shirin / Ahmadi Ebadi Hosseini Karimi Moradi Rahimi Tehrani
Aylin Barış Can Defne Elif Emre Gül Kaan Selin Zeynep / Aydın Çelik Demir Kaya Koç Öztürk Şahin Yıldız
Avi Eitan Maya Noa Shira Tal Yael / Azulay Ben-David Levi Mizrahi Peretz Shalev
Aarav Ananya Arjun Diya Kavya Meera Priya Rahul Sanjay Vikram / Agarwal Bhat Desai Gupta Iyer Nair Patel Rao Sharma
Anika Farhan Nadia Rafiq Sadia Tahmina / Ahmed Chowdhury Hossain Islam Karim Rahman
Bao Fang Hui Jia Jun Lan Li Mei Ming Qiang Wei Xin Yan Ying / Chen Gao Huang Lin Liu Sun Wang Wu Xu Zhang Zhao
Aoi Daichi Emi Haruto Hina Kenji Ren Sakura Sora Yui Yuki / Abe Fujita Hayashi Ito Kimura Mori Nakamura Sato Tanaka
Eun-ji Hye-jin Ji-ho Ji-woo Min-jun Seo-yeon Soo-ah Tae-yang / Choi Han Jang Kang Kim Lee Park Shin Yoon
Anh Bình Đức Hoa Linh Mai Minh Quang Thảo Tuấn / Bùi Đặng Đỗ Hoàng Lê Ngô Nguyễn Phạm Trần Võ
Agus Ayu Budi Dewi Intan Putra Rizky Sari Wayan / Halim Kusuma Lestari Pratama Santoso Setiawan Wijaya
Amihan Bayani Dalisay Jovelyn Ligaya Rodel Tala / Aquino Bautista Dela_Cruz Garcia Mendoza Reyes Santos
Anahera Aroha Hemi Kiri Mere Rangi Tama Wiremu / Ngata Parata Pohatu Tamihana Tipene Walker
Alofa Fetu Ioane Lani Malia Sina Tavita / Faleolo Leota Moala Tuilagi Vaka
Ana Beatriz Caio Davi Gabriela João Larissa Luiza Mateus Thiago / Almeida Barbosa Costa Ferreira Ribeiro Silva Souza
Camila Diego Gael Itzel Javier Lucía Mateo Renata Valentina Ximena / Castillo Flores Gómez Hernández Morales Torres
Amaru Illari Inti Killa Nina Sumaq Wayra / Choque Condori Huanca Mamani Quispe Yupanqui
Aitor Carmen Elena Íñigo Jordi Lola Marta Pau Rocío Sergio / Alonso Blanco Ferrer Navarro Ruiz Serrano Vidal
Antoine Camille Chloé Élodie Hugo Inès Léa Luc Manon Théo / Bernard Dubois Fontaine Girard Leroy Moreau Rousseau
Alessia Chiara Davide Elisa Francesco Giulia Luca Marco Sofia / Bianchi Colombo Conti Ferrari Galli Marino Ricci
Anton Clara Emil Frieda Greta Jonas Jürgen Klara Lukas Mila Paul / Becker Braun Fischer Köhler Krüger Schäfer Weiß
Anneke Bram Daan Femke Lotte Ruben Sanne Thijs / Bakker de_Jong de_Vries Jansen Smit van_Dijk Visser
Astrid Bjørn Elin Freja Ingrid Lars Liv Nils Sigrid Søren Tove / Andersson Berg Dahl Hansen Lindqvist Nilsen Øvergård
Aino Eero Helmi Juhani Onni Päivi Venla Väinö / Heikkinen Korhonen Laine Mäkinen Nieminen Virtanen
Aoife Ciarán Conor Fionn Niamh Oisín Róisín Saoirse / Byrne Doyle Gallagher Kelly Murphy O'Brien O'Connor Quinn
Alice Amelia Callum Ella George Harriet Isla Jack Oliver Ruby / Baker Campbell Davies Evans Hughes Reid Taylor Wright
Agnieszka Bartek Ewa Jakub Kasia Łukasz Magda Paweł Zofia / Dąbrowski Kamiński Kowalczyk Nowak Wiśniewski Zając
Andriy Bohdan Daryna Kateryna Marko Oksana Olena Taras / Bondar Kovalenko Lysenko Melnyk Shevchuk Tkachenko
Ana Dragan Filip Ivana Jelena Luka Milica Nikola / Horvat Ilić Jovanović Marković Novak Petrović
Alexandros Dimitra Eleni Giorgos Ioanna Katerina Nikos Sofia / Antoniou Dimitriou Georgiou Nikolaidis Pappas
"""  # noqa: RUF001 (Turkish has an i without a dot)

_WORDS = {
    "light": "First light|Last light|Golden light|Low sun|Morning fog|Thin mist|A clear sky|Evening haze|Soft rain"
    "|Moonlight|Storm light|Winter sun|Long shadows|Blue hour",
    "place": "harbour|old town|river|ridge|rooftops|market square|lighthouse|pine forest|salt flats|vineyard|tram depot"
    "|botanical garden|railway bridge|fishing village|dunes|canal|orchard|tea fields|night market|courtyard|lagoon"
    "|quarry|valley|pier|monastery|football ground|station hall|cliffs|rice terraces|back streets",
    "thing": "bicycles|lanterns|umbrellas|oranges|window boxes|paper boats|swallows|ceramic bowls|old radios"
    "|cherry trees|kites|spice jars|wooden doors|street dogs|fishing nets|market stalls|balconies|stairways|sunflowers"
    "|pelicans|train tickets|postcards|olive trees|goats",
    "count": "Two|Three|Four|Five|Seven|A dozen|Too many|So many|Not enough|A row of|Somebody else's",
    "time": "before breakfast|after the rain|at dawn|at dusk|just past midnight|on a Sunday|in late autumn|in March"
    "|between two storms|on the first warm day|during the lunch break|when everybody was asleep|at low tide",
    "dish": "Flatbread|Noodle soup|Lentil stew|Plum cake|Grilled corn|Black coffee|Mint tea|Dumplings|Sourdough"
    "|Mango with chilli|Fish stew|Pickled radish|Cardamom buns|Rice pudding",
    "who": "my sister|my grandfather|an old friend|the neighbours|two strangers|my daughter|the whole office"
    "|nobody at all|the dog|my flatmate|a very patient guide|our choir",
    "activity": "Walking|Waiting|Getting lost|Cycling|Sketching|Rowing|Learning to sit still|Looking up|Drying off",
    "camera": "a phone|a borrowed lens|expired film|a pinhole box|the old 50 mm|a disposable camera"
    "|a tripod made of books|my father's rangefinder",
    "feeling": "worth the early alarm|colder than it looks|louder than it looks|over in a minute|a complete accident"
    "|the best part of the week|harder than I thought|exactly as quiet as I hoped|my favourite of the lot",
    "hobby": "bouldering|baking|birdwatching|printmaking|open water swimming|street photography|choir singing|ceramics"
    "|chess|kite building|trail running|astronomy|knitting|salsa",
    "pastime": "long train rides|a garden on a balcony|film cameras|night walks|old bicycles"
    "|cooking for too many people|bad puns|good bread|maps|tide tables|second-hand books|strong coffee",
    "work": "Nurse|Teacher|Architect|Baker|Software engineer|Student|Marine biologist|Bus driver|Carpenter|Librarian"
    "|Electrician|Sound engineer|Midwife|Translator|Geologist|Gardener|Retired surveyor|Dentist|Illustrator|Chef",
    "city": "Lagos|Accra|Nairobi|Cape Town|Cairo|Istanbul|Tehran|Mumbai|Dhaka|Chengdu|Osaka|Busan|Huế|Bandung|Cebu"
    "|Wellington|Apia|Recife|Oaxaca|Cusco|Valencia|Lyon|Bologna|Leipzig|Utrecht|Bergen|Tampere|Galway|Leeds|Gdańsk"
    "|Lviv|Novi Sad|Thessaloniki|Montréal|Chicago",
    "praise": "Love this|Beautiful|What a shot|Stunning|So good|Lovely colours|Great eye|This is a keeper|Superb|Wow"
    "|Que lindo|Magnifique|Wunderschön|Bellissimo|Çok güzel|すてき|Piękne|Maganda|Nzuri sana|Hermoso",
    "remark": "the light is perfect|I can almost smell it|I walk past there every day|it makes me want to travel"
    "|those shadows|I would hang it on my wall|it reminds me of home|the reflection does it for me"
    "|I missed it by an hour|the colours are unreal|you have been practising|it looks like a painting",
    "question": "Where is this?|Which lens was it?|How early did you get up?|Is that the new bridge?"
    "|Can I come along next time?|Did you edit the colours?|Is it film?|How cold was it?|May I have a print?"
    "|What is the recipe?|Was it crowded?|Who is that on the left?",
    "mark": "!|.|!!| :)| ❤️| 🔥| 🙌| ✨| 😍| 👏||",
}

_TITLES = (
    "{light} over the {place}",
    "{light}, {place}",
    "{light} {time}",
    "The {place} {time}",
    "{count} {thing}",
    "{count} {thing} by the {place}",
    "{thing} {time}",
    "{dish} {time}",
    "{dish} with {who}",
    "{activity} by the {place}",
    "{activity} with {who}",
)
_DESCRIPTIONS = (
    "Taken {time} with {camera}.",
    "Out with {who} {time}. It was {feeling}.",
    "The {place} {time}: {feeling}.",
    "We came for the {thing} and stayed for the {place}.",
    "Second attempt with {camera}, and {feeling}.",
    "No plan, only {who} and {camera}.",
    "I had walked past the {place} a hundred times. Then, {time}, there were {thing} everywhere.",
    "For those who asked: {camera}, no filter.",
    "Somewhere near {city}. {activity} is {feeling}.",
    "{who} said that the {place} is best {time}, and that is true.",
)
_BIOS = (
    "{work} in {city}.",
    "{work}, fond of {hobby} and {pastime}.",
    "{work} by day, {hobby} by night.",
    "{hobby} and {pastime}. {city}.",
    "From {city}, mostly elsewhere: {hobby}, {pastime}.",
    "{work} in {city} who takes {camera} everywhere.",
    "Looking for {thing}. {city}.",
    "",
)
_COMMENTS = (
    "{praise}{mark}",
    "{praise}, {remark}{mark}",
    "{praise}! {question}",
    "{question}",
    "{remark}{mark}",
    "The {thing}{mark}",
    "Were you there with {who}? {praise}{mark}",
    "I took the same one with {camera} and it was {feeling}{mark}",
    "{city} has a {place} just like it{mark}",
)

_USERNAMES = (
    "{first}.{last}",
    "{first}.{last}",
    "{first}_{last}",
    "{first}{last}",
    "{last}.{first}",
    "{initial}{last}",
    "{initial}.{last}",
    "{first}.{habit}",
    "{first}_{habit}",
)
_HABITS = (
    "travels",
    "climbs",
    "bakes",
    "sketches",
    "abroad",
    "on.film",
    "cycles",
    "swims",
    "paints",
    "cooks",
    "wanders",
)
# Letters that are no base letter with a mark.
_LETTERS = str.maketrans({"ø": "o", "ł": "l", "đ": "d", "ß": "ss", "ı": "i", "æ": "ae"})  # noqa: RUF001
_NO_LETTER = re.compile(r"[^a-z]")
_LONGEST_USERNAME = 30

_Choice = TypeVar("_Choice")
# Text, and lists of which one word takes its place.
_Template = Sequence[str | Sequence[str]]


class Name(NamedTuple):
    """What a person is called."""

    first: str
    last: str


def name(rng: Random) -> Name:
    """Somebody's name."""
    firsts, lasts = _one(rng, _CULTURES)
    # One in twelve goes by one name.
    return Name(_one(rng, firsts), "" if rng.random() < 1 / 12 else _one(rng, lasts))


def username(rng: Random, of: Name, attempt: int) -> str:
    """A username made of a name. Later attempts end in numbers, which grow until one is free."""
    first = _ascii(of.first)
    last = _ascii(of.last) or _one(rng, _HABITS)
    composed = _one(rng, _USERNAMES).format(first=first, last=last, initial=first[0], habit=_one(rng, _HABITS))
    number = str(rng.randrange(10 ** (attempt + 1))) if attempt else ""
    return composed[: _LONGEST_USERNAME - len(number)] + number


def bio(rng: Random) -> str:
    """What somebody says of themselves. May be empty."""
    return _text(rng, _BIO_TEMPLATES)


def title(rng: Random) -> str:
    """The title of a post."""
    return _text(rng, _TITLE_TEMPLATES)


def description(rng: Random) -> str:
    """What a post says about itself: no to three sentences or so."""
    return " ".join(_text(rng, _DESCRIPTION_TEMPLATES) for _ in range(int(rng.random() * 3)))


def comment(rng: Random) -> str:
    """A comment on a post."""
    return _text(rng, _COMMENT_TEMPLATES)


def _text(rng: Random, templates: Sequence[_Template]) -> str:
    text = "".join([part if isinstance(part, str) else _one(rng, part) for part in _one(rng, templates)])
    return text[:1].upper() + text[1:]


def _one(rng: Random, choices: Sequence[_Choice]) -> _Choice:
    # rng.choice takes three times as long, and there are millions of texts to compose.
    return choices[int(rng.random() * len(choices))]


def _ascii(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    return _NO_LETTER.sub("", decomposed)


def _names(line: str) -> Sequence[Sequence[str]]:
    return [[word.replace("_", " ") for word in names.split()] for names in line.split("/")]


def _templates(texts: Sequence[str], words: Mapping[str, Sequence[str]]) -> Sequence[_Template]:
    parsed = []
    for text in texts:
        parts: list[str | Sequence[str]] = []
        for literal, field, _, _ in string.Formatter().parse(text):
            parts += [literal, words[field]] if field else [literal]
        parsed.append(parts)
    return parsed


_CULTURES = [_names(line) for line in _NAMES.strip().splitlines()]
_LISTS = {name: words.split("|") for name, words in _WORDS.items()}
_TITLE_TEMPLATES = _templates(_TITLES, _LISTS)
_DESCRIPTION_TEMPLATES = _templates(_DESCRIPTIONS, _LISTS)
_BIO_TEMPLATES = _templates(_BIOS, _LISTS)
_COMMENT_TEMPLATES = _templates(_COMMENTS, _LISTS)
