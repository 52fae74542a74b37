gttd_test(sampler_test SOURCES unit/sampler_test.c LIBS llm m)
gttd_test(stream_test SOURCES unit/stream_test.c LIBS llm)
