"""Plot a store of fixed points with nothing but xarray and matplotlib: a store is plain Zarr.

    ctd run examples/decision_fixed_points.yaml
    python examples/plot_store.py examples/decision_fixed_points.zarr fixed_points.png

Left: every search, how far it went and what q it came to. Right: the eigenvalues of the Jacobian at every
unique point; a network leaves a point along the modes outside the unit circle.
"""

import sys

import matplotlib.pyplot as plt
import xarray as xr

tree = xr.open_datatree(sys.argv[1], engine="zarr")
searches, points = tree["results/0"].to_dataset(), tree["gathered/0"].to_dataset()

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")

done = searches.where((searches.status == 1) & (searches.q > 0))
done.plot.scatter(x="distance", y="q", s=8, ax=left)
left.set(yscale="log", title=f"{searches.sizes['item']:,} searches")

right.add_patch(plt.Circle((0, 0), 1, fill=False, color="0.7"))
for stable, colour in ((True, "tab:blue"), (False, "tab:red")):
    spectra = points.eigenvalue[points.stable.values == stable]
    label = f"{len(spectra)} {'stable' if stable else 'unstable'} points"
    right.scatter(spectra.real, spectra.imag, s=8, color=colour, label=label)
right.set(xlabel="Re", ylabel="Im", title="eigenvalues of dF/dh", aspect="equal")
right.legend()

figure.savefig(sys.argv[2], dpi=150)
