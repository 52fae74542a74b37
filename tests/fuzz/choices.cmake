gttd_fuzz(fuzz_choices SOURCES fuzz/fuzz_choices.c LIBS vk)
