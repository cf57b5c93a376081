"""What a job is: spec, plan, one shard's work, store, gather, query. Runs in one process, without a cluster."""

from jobs.errors import JobError as JobError
from jobs.export import export as export
from jobs.gather import gather as gather
from jobs.query import query as query
from jobs.store import Store as Store
from jobs.store import open_store as open_store
