"""Run many items of one group side by side on the local devices.

A device holds `slots` items at a time, in microbatches of m: vmap inside a microbatch, a loop over the
microbatches. m = 1 is `lax.map`, m = slots is `vmap`; which is faster depends on kernel and device
(`ctd.batch.tune`). The queue refills the slots of finished items. Once it is empty, the live items are packed to the front,
so that the loop runs over fewer microbatches.

        logical slot   0 1 2 3 | 4 5 6 7 | 8 9 . .      m = 4, 10 live items: bound = 3
                       `------'  microbatch = one vmapped program, never of another width

Only m enters the arithmetic of an item: for one m the bits of an item depend neither on the number of slots
nor on the items beside it. With D devices, logical slot p lies on device p mod D. For m > 1 XLA may compile another program for
one device than for several, whose last digits differ (divisions by a number for each item become products); any number of
devices from two on gives the same bits.
"""

from ctd.batch.items import checked as checked
from ctd.batch.items import run_items as run_items
from ctd.batch.program import FEW_MAPS as FEW_MAPS
from ctd.batch.program import Layout as Layout
from ctd.batch.program import Program as Program
from ctd.batch.program import evaluated as evaluated
from ctd.batch.program import layout_for as layout_for
from ctd.batch.program import make_room as make_room
from ctd.batch.program import precision as precision
from ctd.batch.program import program as program
from ctd.batch.program import shapes_of as shapes_of
from ctd.batch.program import traced_columns as traced_columns
from ctd.batch.run import Run as Run
from ctd.batch.run import Snapshot as Snapshot
from ctd.batch.slots import DeviceSlots as DeviceSlots
