# NVIDIA's cudnn-frontend, headers only, by which bench/attention times cuDNN beside our kernels
# (cudnn_attention.cpp): in the folder that -DNANOVLM_CUDNN_FRONTEND=FOLDER names, else in the wheel that
# scripts/setup.sh installs, else on the system. cuDNN's own headers lie beside the CUDA toolkit's or on the system; its
# library is loaded at run time.
set(cudnn_frontend_least 1.15)  # softmax statistics have been asked for by name since then
set(cudnn_frontend_below 2)

if(NOT TARGET nanovlm_cuda)
  return()
endif()
find_package(CUDAToolkit REQUIRED)
if(NANOVLM_CUDNN_FRONTEND)
  find_path(cudnn_frontend_headers cudnn_frontend.h PATHS ${NANOVLM_CUDNN_FRONTEND} NO_DEFAULT_PATH NO_CACHE)
else()
  file(GLOB wheel_headers ${PROJECT_SOURCE_DIR}/.venv/lib/python3*/site-packages/include)
  find_path(cudnn_frontend_headers cudnn_frontend.h HINTS ${wheel_headers} NO_CACHE)
endif()
find_path(cudnn_headers cudnn.h HINTS ${CUDAToolkit_INCLUDE_DIRS} NO_CACHE)
if(NOT cudnn_frontend_headers OR NOT cudnn_headers)
  message(STATUS "bench/attention: no cudnn_frontend.h with a cudnn.h, so cuDNN is not timed beside it")
  return()
endif()
foreach(part MAJOR MINOR)
  file(STRINGS ${cudnn_frontend_headers}/cudnn_frontend_version.h line REGEX "define CUDNN_FRONTEND_${part}_VERSION ")
  string(REGEX MATCH "[0-9]+" ${part} "${line}")
endforeach()
set(cudnn_frontend_version ${MAJOR}.${MINOR})
if(cudnn_frontend_version VERSION_LESS cudnn_frontend_least
   OR cudnn_frontend_version VERSION_GREATER_EQUAL cudnn_frontend_below)
  message(STATUS "bench/attention: cudnn-frontend ${cudnn_frontend_version} is not from ${cudnn_frontend_least} to "
                 "below ${cudnn_frontend_below}, so cuDNN is not timed beside it")
  return()
endif()
message(STATUS "bench/attention: cuDNN by cudnn-frontend ${cudnn_frontend_version} in ${cudnn_frontend_headers}")
set_source_files_properties(
  ${PROJECT_SOURCE_DIR}/bench/common/cudnn_attention.cpp PROPERTIES
  COMPILE_DEFINITIONS "NANOVLM_CUDNN_FRONTEND=1;NANOVLM_CUDA_LIBRARIES=\"${CUDAToolkit_LIBRARY_DIR}\""
  COMPILE_OPTIONS "-isystem;${cudnn_frontend_headers};-isystem;${cudnn_headers}")
