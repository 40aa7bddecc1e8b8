"""The worker pool: processes for rollouts, collection, baselines and the doctor.

`worker.Worker` is one process. `pool.WorkerPool` holds several and replaces those that die.
`tasks.run_tasks` maps a function over tasks in a pool. Workers are not `multiprocessing` children:
they do not import the main program, so that it needs no `if __name__ == "__main__":`. A worker
imports this package at its start, so that the package must not import modules that load slowly.
"""
