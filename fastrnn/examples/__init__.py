"""Examples on data that every machine has, one file each: the data, a model, its training, and a look at the result."""

from fastrnn.examples import dates, digits, tags, words

EXAMPLES = {"digits": digits, "words": words, "dates": dates, "tags": tags}
