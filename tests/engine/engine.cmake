foreach(backend reference cpu vulkan)
    add_test(NAME golden_${backend} COMMAND golden_test ${backend}
             WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(golden_${backend} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900
                         LABELS "engine;slow")
endforeach()
add_executable(golden_test engine/golden_test.c)
target_link_libraries(golden_test PRIVATE check model cpu_backends vk PkgConfig::JANSSON m)

add_library(spawn STATIC engine/spawn.c)
target_link_libraries(spawn PUBLIC check)
target_include_directories(spawn PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_compile_definitions(spawn PUBLIC GTTD_PATH="$<TARGET_FILE:gttd>"
                                         GTTRUN_PATH="$<TARGET_FILE:gttrun>")
add_dependencies(spawn gttd gttrun)
gttd_test(cli_test SOURCES engine/cli_test.c LIBS spawn LABELS engine)
add_test(NAME cli_vulkan COMMAND cli_test vulkan WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
set_tests_properties(cli_vulkan PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 120 LABELS engine
    ENVIRONMENT "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/lsan.supp:print_suppressions=0")
gttd_test(pool_test SOURCES engine/pool_test.c LIBS spawn gtt PkgConfig::JANSSON LABELS engine
          TIMEOUT 300)

add_executable(many_test engine/many_test.c engine/keep_drivers.c)
target_link_libraries(many_test PRIVATE check llm)
foreach(backend reference cpu vulkan)
    add_test(NAME many_${backend} COMMAND many_test ${backend}
             WORKING_DIRECTORY ${PROJECT_SOURCE_DIR})
    set_tests_properties(many_${backend} PROPERTIES SKIP_RETURN_CODE 77 TIMEOUT 900 LABELS engine
        ENVIRONMENT "LSAN_OPTIONS=suppressions=${CMAKE_CURRENT_LIST_DIR}/lsan.supp:print_suppressions=0")
endforeach()
set_tests_properties(many_vulkan PROPERTIES LABELS "engine;matrices")
