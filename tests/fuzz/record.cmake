gttd_fuzz(fuzz_record SOURCES fuzz/fuzz_record.c LIBS gttd_core)
