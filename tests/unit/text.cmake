# The tokenizer and the chat template. The vectors are read with jansson, another JSON reader.
gttd_test(tokenizer_test SOURCES unit/tokenizer_test.c LIBS text PkgConfig::JANSSON)
gttd_test(tokenizer_json_test SOURCES unit/tokenizer_json_test.c LIBS text)
gttd_test(chat_test SOURCES unit/chat_test.c LIBS text PkgConfig::JANSSON)
