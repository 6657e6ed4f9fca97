/* cudnn.h - the part of cuDNN's interface that cuda/ uses outside of cudnn_graph.c, for tests/cusim/cudnn_naive.c. */
#ifndef CUSIM_CUDNN_H
#define CUSIM_CUDNN_H

#include <cuda_runtime_api.h>
#include <stddef.h>

typedef enum { CUDNN_STATUS_SUCCESS, CUDNN_STATUS_NOT_INITIALIZED = 1001 } cudnnStatus_t;
typedef enum { CUDNN_DATA_FLOAT = 0, CUDNN_DATA_HALF = 2, CUDNN_DATA_BFLOAT16 = 9 } cudnnDataType_t;
typedef enum { CUDNN_HEUR_MODE_A = 3, CUDNN_HEUR_MODE_FALLBACK = 2 } cudnnBackendHeurMode_t;

typedef struct cudnnContext *cudnnHandle_t;
typedef struct naive_config *cudnnBackendDescriptor_t;

size_t cudnnGetVersion(void);
cudnnStatus_t cudnnCreate(cudnnHandle_t *handle);
cudnnStatus_t cudnnDestroy(cudnnHandle_t handle);
cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t st);
const char *cudnnGetErrorString(cudnnStatus_t status);
void cudnnGetLastErrorString(char *message, size_t max_size);

#endif
