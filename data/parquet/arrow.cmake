# Arrow's C++ library, for Parquet files: installed on the system, or inside the pyarrow wheel, which brings headers and
# libraries. Defines the target nanovlm_arrow where one of them is found.
set(arrow_least 25)  # parquet::PageReader::Open has had its arguments since then
set(arrow_below 27)

find_package(Arrow CONFIG QUIET)
find_package(Parquet CONFIG QUIET)
if(TARGET Parquet::parquet_shared AND Arrow_VERSION VERSION_GREATER_EQUAL arrow_least
   AND Arrow_VERSION VERSION_LESS arrow_below)
  add_library(nanovlm_arrow INTERFACE)
  target_link_libraries(nanovlm_arrow INTERFACE Parquet::parquet_shared Arrow::arrow_shared)
  message(STATUS "Parquet: Arrow ${Arrow_VERSION} of the system")
  return()
endif()

# -DNANOVLM_PYARROW=FOLDER names another pyarrow package than the one that scripts/setup.sh installs.
if(NOT NANOVLM_PYARROW)
  file(GLOB NANOVLM_PYARROW ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/pyarrow)
endif()
foreach(major RANGE ${arrow_least} ${arrow_below})
  set(arrow_library ${NANOVLM_PYARROW}/libarrow.so.${major}00)
  set(parquet_library ${NANOVLM_PYARROW}/libparquet.so.${major}00)
  if(major LESS arrow_below AND EXISTS ${arrow_library} AND EXISTS ${parquet_library} AND NOT TARGET nanovlm_arrow)
    foreach(library arrow parquet)
      add_library(wheel_${library} SHARED IMPORTED)
      set_target_properties(wheel_${library} PROPERTIES IMPORTED_LOCATION ${${library}_library}
                            INTERFACE_INCLUDE_DIRECTORIES ${NANOVLM_PYARROW}/include)
    endforeach()
    add_library(nanovlm_arrow INTERFACE)
    target_link_libraries(nanovlm_arrow INTERFACE wheel_parquet wheel_arrow)
    message(STATUS "Parquet: Arrow ${major} in ${NANOVLM_PYARROW}")
  endif()
endforeach()
if(NOT TARGET nanovlm_arrow)
  message(STATUS "Parquet: no Arrow from ${arrow_least} to below ${arrow_below}, so .parquet files can't be read")
endif()
