# Raw HTTP clients against the real server. Under TSan the engine makes them take minutes.
add_library(http_client STATIC engine/http_client.c engine/chat_client.c)
target_link_libraries(http_client PUBLIC check PRIVATE PkgConfig::JANSSON)

gttd_test(server_test SOURCES engine/server_test.c LIBS http http_client LABELS engine TIMEOUT 900)
gttd_test(serve_test SOURCES engine/serve_test.c LIBS spawn http_client LABELS engine TIMEOUT 900)
gttd_test(kept_test SOURCES engine/kept_test.c engine/keep_drivers.c LIBS llm supervisor m
          LABELS engine TIMEOUT 600)
set_tests_properties(kept_test PROPERTIES ENVIRONMENT
    "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/lsan.supp:print_suppressions=0")
gttd_test(hold_test SOURCES engine/hold_test.c LIBS spawn supervisor http_client LABELS engine
          TIMEOUT 300)
