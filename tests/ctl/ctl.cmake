# gttctl against a real gttd.
gttd_test(gttctl_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/gttctl_test.c
          LIBS spawn gtt PkgConfig::JANSSON LABELS daemon)
target_compile_definitions(gttctl_test PRIVATE GTTCTL_PATH="$<TARGET_FILE:gttctl>")
add_dependencies(gttctl_test gttctl)
