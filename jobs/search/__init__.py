"""Search: how the items of a sweep act on one another between their advances.

This folder has the decisions; they are functions of the job and of what shards report.

    jobs.search.population      population-based training: which member copies which, where its parameters move
    jobs.search.rules           what each kind of search decides between two laps, and what it keeps of it; successive halving
    jobs.search.laps            one shard's search: laps of advances, decisions in between

What belongs to a search elsewhere:

    jobs.spec.search            the `search:` section of a job file
    jobs.spec.presets           searches that a kernel declares under a name
    jobs.plan.search            does the section fit the job; what the store keeps of it: the lineage of every item
    ctd.batch.laps              items on the devices, lap by lap; jobs.run.worker builds a search on it
    jobs.run.rendezvous         where shards meet: what each leaves for the others at the end of a lap
    jobs.run.coordinator        which shards wait at a meeting, and what follows once all do
    jobs.query.tables           the table `search` of a query
    jobs.report.search_plots    what a report shows of it, beside jobs.report.page.content
"""
