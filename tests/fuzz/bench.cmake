gttd_fuzz(fuzz_bench SOURCES fuzz/fuzz_bench.c LIBS bench_earlier)
