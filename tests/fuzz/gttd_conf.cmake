gttd_fuzz(fuzz_gttd_conf SOURCES fuzz/fuzz_gttd_conf.c LIBS gttd_core)
