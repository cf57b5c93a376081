"""Search: what a sweep's items do to one another between their advances.

jobs.spec.search         the `search:` section of a job file
jobs.search.halving      successive halving: which items leave at a rung
jobs.search.population   population-based training: who copies whom, and where the parameters move
jobs.plan.search_results      what the store keeps of it: the lineage of every item
jobs.plan.search      does the section fit the job's kernel and sweep
jobs.search.laps          one shard's search: laps of advances, decisions in between
jobs.run.rendezvous      where shards meet: what each leaves for the others at the end of a lap
jobs.run.coordinator      who has come to a meeting, and what follows once all have
jobs.report.search_plots        what a report shows of it
"""
