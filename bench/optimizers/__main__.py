"""`python -m bench.optimizers`: time of a step, then the automatic choice against a grid."""

from bench.optimizers import auto_vs_grid, step_time

if __name__ == "__main__":
    step_time.main()
    auto_vs_grid.main()
