"""The order of a head's dimensions: Hugging Face's against the GGUF's."""


def to_gguf(head, order, rotary):
    """Reorder numbers that belong to the dimensions of one head, for the place where the cache applies them.

    head    [head_dim] numbers in Hugging Face's order: rotary pair i at dims i and i + rotary/2
    order   "half": the GGUF has that order too. "interleaved": it has pair i at dims 2i and 2i + 1 (llama family)
    rotary  dimensions that are rotated, the first ones; the others stay where they are

    Returns a list [head_dim].
    """
    head = list(head)
    if order == "half":
        return head
    pairs = zip(head[:rotary // 2], head[rotary // 2:rotary])
    return [x for pair in pairs for x in pair] + head[rotary:]
