"""Examples on data that every machine has, one file each: the data, a model, its training, and a look at the result."""

from fastrnn.examples import dates, delays, digits, tags, trees, words

EXAMPLES = {"digits": digits, "words": words, "dates": dates, "tags": tags, "delays": delays, "trees": trees}
