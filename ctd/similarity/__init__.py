"""Kernel: how alike networks are: the distance of every two of them, over common trials.

n networks have n (n - 1) / 2 pairs. An item is a row of their symmetric matrix: network `matrix_row` against each of the
(n - 1) / 2 or n / 2 networks after it, counted round. So each pair is computed once, rows take equally long, shards
are blocks of rows, and one `advance` is one pair.

    params       Comparison: the methods and their settings     networks  states, points, what is known of each network
    features     what a method keeps of a network               topology  the points, and which leads to which
    dynamics     the linear dynamics that `dsa` compares        pairs     the distance of two networks
    kernel       the rows, behind the kernel contract           plots     matrix, dendrogram, embedding
    embedding    multidimensional scaling, clusters             explained how much a parameter explains of the distances
    summary      the matrix and the tables of all of these
    notebook     `compare`: arrays in this process

`reduce` joins the rows to the matrix, embeds and clusters it.
"""

from ctd.similarity.kernel import kernel
from ctd.similarity.notebook import Compared, compare

__all__ = ["Compared", "compare", "kernel"]
