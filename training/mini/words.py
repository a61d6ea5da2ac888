"""Everyday English words about what a camera sees, so that a new room's captions are short sequences out of the box.

Verbs stand as captions have them: "walks", "walking".  Other forms, and words that are not here, are made of shorter tokens.
"""

from __future__ import annotations

GRAMMAR = """
a an the this that these those some any no every each all both another other same
and or but then now again still while as until because so if than very too also only just almost already not never always
is are was were be been being has have had does do did will would can could may must
it its he his him she her they their them who which what where when how there here nobody nothing someone something everyone
in on at of to from with without by for into onto out off over under up down through across along around between behind
before after beside near next above below inside outside towards away against past among during about left right middle
one two three four five six seven eight nine ten first second third last many few several more most less half
"""

PEOPLE = """
person people man men woman women child children boy girl baby adult crowd group family friend couple couples pair team
worker driver rider player dancer cook chef waiter guest customer seller doctor nurse teacher student police officer
soldier guard farmer singer musician artist swimmer runner cyclist skier climber juggler audience speaker presenter
head face hair eye eyes ear nose mouth hand hands arm arms leg legs foot feet finger shoulder back body beard
hat cap helmet coat jacket shirt dress skirt trousers jeans shorts shoe shoes boot glove scarf tie suit uniform apron
glasses mask bag backpack suitcase umbrella stick
"""

ANIMALS = """
animal dog puppy cat kitten horse cow sheep goat pig rabbit mouse rat bird chicken duck goose pigeon seagull owl eagle parrot
penguin fish shark whale dolphin turtle frog snake lizard spider butterfly bee fly ant elephant giraffe lion tiger bear panda
monkey deer fox wolf squirrel hedgehog camel zebra seal crab tail wing wings paw fur feather beak nest cage herd flock
"""

PLACES = """
room kitchen bathroom bedroom hall corridor office shop store market street road path track bridge tunnel crossing corner
square park garden yard field farm forest wood hill mountain valley river lake sea ocean beach island shore harbour
city town village station airport school church castle tower house home building factory hospital hotel restaurant bar cafe
museum library theatre stage stadium court pool gym playground warehouse garage lot pavement kerb fence wall gate door
window roof floor ceiling stairs step lift balcony entrance exit counter aisle platform desert studio ground sky
"""

THINGS = """
table chair bench sofa bed desk shelf cupboard drawer box lamp light candle clock mirror picture painting carpet curtain
pillow blanket towel computer laptop screen keyboard phone camera television radio book paper pen pencil card letter sign
poster flag map key lock coin money ticket toy doll ball balloon kite rope wheel ladder tool hammer knife scissors brush
broom bucket basket bottle cup glass mug plate bowl pan pot spoon fork tray lid bin machine engine motor robot wire pipe
stone rock sand mud dust smoke fire flame ash steam bubble water ice snow rain cloud fog wind sun moon star shadow
tree leaf leaves branch flower grass bush plant seed fruit root
"""

FOOD = """
food meal bread cake pizza sandwich soup salad rice pasta meat egg cheese butter milk coffee tea juice wine beer sugar
salt oil sauce chocolate apple banana orange lemon tomato potato onion carrot pepper mushroom dough slice piece
"""

TRAFFIC = """
car truck lorry bus van taxi bicycle bike motorcycle scooter train tram plane aeroplane helicopter boat ship ferry rocket
tractor trailer traffic lane wheelchair pram trolley vehicle vehicles cars
"""

SPORT = """
sport game match race football soccer basketball tennis volleyball baseball golf hockey skating skiing surfing swimming
boxing dance dancing music song guitar piano drum goal net racket bat score point player referee
"""

ACTIONS = """
walks walking runs running stands standing sits sitting lies lying kneels jumps jumping climbs climbing falls falling
enters entering leaves leaving arrives passes passing crosses crossing approaches turns turning stops stopping waits waiting
starts starting begins moves moving comes goes going returns stays appears appearing disappears disappearing follows chases
opens opening closes closing takes taking puts putting picks picking holds holding carries carrying brings lifts lifting drops
throws throwing catches catching kicks hits pushes pushing pulls pulling shakes rolls rolling spins swings slides drags hangs
cuts cutting mixes mixing stirs pours pouring fills cooks cooking bakes eats eating drinks drinking washes washing cleans
cleaning sweeps wipes paints painting draws writes writing reads reading types builds repairs fixes ties folds wraps packs
looks looking watches watching sees points pointing waves waving nods smiles smiling laughs cries sings singing talks talking
speaks speaking listens plays playing dances works working sleeps sleeping rests wakes hugs kisses shows showing gives giving
buys sells pays serves drives driving rides riding parks flies flying lands swims sails floats sinks flows burns burning melts
grows breaks blows shines rains snows glows changes happens continues remains keeps becomes gets makes uses using helps meets
lights switches swaps joins splits gathers spreads rises drifts hovers circles bounces zooms pans fades tilts empty
"""

QUALITIES = """
red orange yellow green blue purple pink brown black white grey dark bright light colourful pale golden silver striped
big large small little tiny huge tall short long wide narrow thick thin round flat high low deep full empty heavy
old young new fast slow quick slowly quickly suddenly quietly carefully gently alone together hot cold warm wet dry clean
dirty broken open closed still quiet loud busy calm happy sad tired wooden metal plastic blurred sharp close far distant
front rear upper lower top bottom side edge end centre
"""

PICTURE = """
camera scene view frame image video shot background foreground distance moment time day night morning evening front
text title logo caption letter number line circle square triangle shape animation cartoon screen page slide chart
"""

WORDS = " ".join((GRAMMAR, PEOPLE, ANIMALS, PLACES, THINGS, FOOD, TRAFFIC, SPORT, ACTIONS, QUALITIES, PICTURE)).split()
"""All of them; a word may stand in several lists."""
