gttd_fuzz(fuzz_openai SOURCES fuzz/fuzz_openai.c LIBS openai)
