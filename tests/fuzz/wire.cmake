gttd_fuzz(fuzz_wire SOURCES fuzz/fuzz_wire.c LIBS gttd_wire)
