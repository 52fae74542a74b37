# Model directories, configs, weight files and images.
set(here ${CMAKE_CURRENT_LIST_DIR})
add_library(model_dir STATIC ${here}/model_dir.c)
target_include_directories(model_dir PUBLIC ${here})
target_link_libraries(model_dir PUBLIC model check)

gttd_test(image_test SOURCES ${here}/image_test.c LIBS random_model model m LABELS unit)
gttd_test(config_test SOURCES ${here}/config_test.c LIBS model_dir m LABELS unit)
gttd_test(safetensors_test SOURCES ${here}/safetensors_test.c LIBS model LABELS unit)
gttd_test(load_test SOURCES ${here}/load_test.c LIBS model_dir LABELS unit)
gttd_test(quantize_test SOURCES ${here}/quantize_test.c LIBS model_dir m LABELS unit)
set_tests_properties(load_test quantize_test PROPERTIES ENVIRONMENT
    "GLIBC_TUNABLES=glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0:glibc.malloc.arena_max=1")
