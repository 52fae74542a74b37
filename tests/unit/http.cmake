gttd_test(openai_test SOURCES unit/openai_test.c LIBS openai PkgConfig::JANSSON LABELS unit)
gttd_test(http_parts_test SOURCES unit/http_parts_test.c LIBS http_parts LABELS unit)
