"""Which of many numbers, each known up to an error, can be among the best.

Sizes: n `products` and `errors` float32; the errors are in units of `length`, and `least` is added to each.
"""

import numpy as np

from .jit import kernel


@kernel
def group_floors(products, errors, length, least, size, out):
    """Write the greatest of each `size` products, each as low as it can be, to `out`.

    The k-th best of these is at most the k-th best of all, for they belong to different products.
    """
    for group in range(len(out)):
        best = np.float32(-np.inf)
        for i in range(group * size, min((group + 1) * size, len(products))):
            best = max(best, products[i] - (errors[i] * length + least))
        out[group] = best


@kernel
def places_above(products, errors, length, least, edge, places):
    """Write the places of the products that can be `edge` or more to `places`; return how many they are.

    Ends with one more than `places` has room for.
    """
    count = 0
    for i in range(len(products)):
        if products[i] + (errors[i] * length + least) >= edge:
            if count == len(places):
                return count + 1
            places[count] = i
            count += 1
    return count
