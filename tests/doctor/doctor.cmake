# doctor on recorded trees: its judgement in memory, and the program below a directory.
add_library(text_tree STATIC ${CMAKE_CURRENT_LIST_DIR}/text_tree.c)
target_include_directories(text_tree PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_link_libraries(text_tree PUBLIC check doctor)

add_library(doctor_json STATIC ${PROJECT_SOURCE_DIR}/tools/gttctl/doctor_json.c)
target_include_directories(doctor_json PUBLIC ${PROJECT_SOURCE_DIR}/tools/gttctl)
target_link_libraries(doctor_json PUBLIC doctor PkgConfig::JANSSON)

foreach(name trees fix confine)
    gttd_test(doctor_${name}_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/doctor_${name}_test.c
              ${CMAKE_CURRENT_LIST_DIR}/doctor_rig.c LIBS text_tree doctor_json spawn LABELS daemon)
    target_compile_definitions(doctor_${name}_test PRIVATE GTTCTL_PATH="$<TARGET_FILE:gttctl>")
    add_dependencies(doctor_${name}_test gttctl)
endforeach()
gttd_test(doctor_text_test SOURCES ${CMAKE_CURRENT_LIST_DIR}/doctor_text_test.c LIBS doctor)
gttd_fuzz(doctor_fuzz SOURCES ${CMAKE_CURRENT_LIST_DIR}/doctor_fuzz.c LIBS text_tree doctor_json)
