"""The `run:` section of a job file: how a job is cut into shards, what a worker has, and what happens when something fails."""

from pydantic import BaseModel, Field, NonNegativeInt, PositiveFloat, PositiveInt, field_validator

from jobs.forms import SECTION

LAYOUT = ("slots", "microbatch", "shard_items")
"""The settings that affect the layout of a store, which is made once."""


class RunSettings(BaseModel):
    """Settings of a job's run. Those but `LAYOUT` may change from run to run of a store."""

    model_config = SECTION

    slots: PositiveInt | None = None
    """items that a device holds at a time; by default the kernel's `width`"""
    microbatch: PositiveInt | None = None
    """items that are computed together (vmapped) inside a shard; by default the fastest number, measured at start-up"""
    shard_items: PositiveInt | None = None
    """items of one shard; by default chosen from the size of the results and the number of workers"""
    workers: PositiveInt | None = None
    """worker processes; by default one for each GPU, or for each CPU core if there is no GPU"""
    cpus_per_worker: float = Field(1, gt=0)
    """CPU cores of a worker; without GPUs its items are split over them"""
    gpus_per_worker: float | None = Field(None, ge=0)
    """GPUs of a worker, or its share of one GPU, such as 0.5; by default 1 where there are GPUs"""
    memory_gb: float | None = Field(None, gt=0)
    """memory that one worker may use (GB); by default what its device has"""
    retries: NonNegativeInt = 2
    """further attempts at a shard that failed"""
    backoff_s: float = Field(1.0, ge=0)
    """wait before a retry, doubled each time (s)"""
    checkpoint_s: float = Field(300, ge=0)
    """time between two checkpoints inside a shard (s)"""
    time_limit_s: PositiveFloat | None = None
    """longest time of one advance, compilation included (s); an attempt that takes longer is ended. By default 20 times the longest advance
    so far, at least a minute. Anything else, such as loading data, may take an hour, or this limit if it is longer"""
    straggler_factor: float = Field(4, ge=0)
    """once no shard waits, one that runs this many times longer than its group's median gets a second attempt on an idle node; 0: never"""
    grace_s: float = Field(30, ge=0)
    """how long workers may take to checkpoint when the run is stopped (s)"""
    cluster_wait_s: float = Field(600, ge=0)
    """how long to wait for a lost Ray cluster (s); then the run exits with 75"""

    @field_validator("gpus_per_worker")
    @classmethod
    def _whole_or_part(cls, value: float | None) -> float | None:
        if value is not None and value > 1 and value != int(value):
            raise ValueError("expected a whole number, or a share of one GPU such as 0.5")
        return value

    @property
    def cores(self) -> int:
        """Whole CPU cores of a worker, at least one."""
        return max(1, int(self.cpus_per_worker))

    def devices(self, on_gpus: bool) -> int:
        """Number of JAX devices that share a worker's memory: its CPU cores, or 1 if it runs on GPUs."""
        return 1 if on_gpus else self.cores

    def gpus(self, on_gpus: bool) -> float:
        """GPUs of a worker: `gpus_per_worker`, by default one if there are GPUs."""
        return float(on_gpus) if self.gpus_per_worker is None else self.gpus_per_worker

    def places(self, cpus: float, gpus: float, on_gpus: bool) -> int:
        """Number of workers that a node of so many cores and GPUs has room for; on_gpus: whether any node has GPUs."""
        each, places = self.gpus(on_gpus), cpus / self.cpus_per_worker
        return int(min(places, gpus / each) if each else places)
