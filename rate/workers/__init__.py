"""The worker pool: rollouts, collection, baselines and the doctor run in its processes.

`worker.Worker` is one process, `pool.WorkerPool` several that are replaced when they die, and
`tasks.run_tasks` has them call a function for each of many tasks. Workers are no `multiprocessing`
children: they do not run the main program once more, so that it needs no
`if __name__ == "__main__":`. What they import first is in this package: keep it free of whatever is
slow to load.
"""
