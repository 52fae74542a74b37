# The tokenizer and the chat template. The vectors are read with jansson, another JSON reader.
gttd_test(tokenizer_test SOURCES unit/tokenizer_test.c LIBS text PkgConfig::JANSSON LABELS "unit;single")
gttd_test(tokenizer_json_test SOURCES unit/tokenizer_json_test.c LIBS text LABELS "unit;single")
gttd_test(chat_test SOURCES unit/chat_test.c LIBS text PkgConfig::JANSSON LABELS "unit;single")
