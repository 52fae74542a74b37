set(here ${CMAKE_CURRENT_LIST_DIR})
gttd_test(image_test SOURCES ${here}/image_test.c LIBS random_model model m LABELS unit)
