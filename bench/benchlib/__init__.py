"""What the benchmarks share: workloads, contenders, ceilings, timing and reports."""
