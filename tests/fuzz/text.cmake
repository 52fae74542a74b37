gttd_fuzz(fuzz_tokenizer SOURCES ${CMAKE_CURRENT_SOURCE_DIR}/fuzz/fuzz_tokenizer.c LIBS text)
