"""Kernel: the distances between networks, by their states in common trials or by their fixed points.

n networks have n (n - 1) / 2 pairs. An item is a row of their symmetric matrix: network `matrix_row` against each of the
(n - 1) / 2 or n / 2 networks after it, modulo n. Each pair is computed once, rows take equally long, shards are blocks
of rows, and one `advance` is one pair. `reduce` joins the rows to the matrix, embeds it and clusters it.

    params       Comparison: the methods and their settings     networks  reads states, points, and labels of networks
    features     the arrays that a method compares              topology  counts of fixed points by stability and graph
    dynamics     the linear dynamics that `dsa` compares        pairs     the distance of two networks
    kernel       the rows, behind the kernel contract           plots     matrix, dendrogram, embedding
    analysis     multidimensional scaling, clusters, and how much a parameter explains of the distances
    summary      the matrix and all tables made from it         notebook  `compare`: arrays in this process
"""

from ctd.similarity.kernel import kernel
from ctd.similarity.notebook import Compared, compare

__all__ = ["Compared", "compare", "kernel"]
