"""`python -m bench.optimizers`: time of a step, the automatic choice against a grid, best rates by length of runs."""

from bench.optimizers import auto_vs_grid, rates_by_length, step_time

if __name__ == "__main__":
    step_time.main()
    auto_vs_grid.main()
    rates_by_length.main()
