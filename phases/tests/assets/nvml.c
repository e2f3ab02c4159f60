/* A stand-in for NVIDIA's library on machines without a GPU: one device, with MIG two instances (-DMIG), or none
   (-DDEVICES=0), or a driver that is not loaded (-DUNLOADED). Signatures: https://docs.nvidia.com/deploy/nvml-api/ */
#include <stdio.h>
#include <string.h>

#ifndef DEVICES
#define DEVICES 1
#endif

typedef int result;
enum { SUCCESS = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, DRIVER_NOT_LOADED = 9 };
typedef struct { int number; } *device;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;
typedef struct { unsigned gpu, memory; } utilization;

static struct { int number; } devices[4] = {{0}, {1}, {2}, {3}};
#define AT(n) ((device)&devices[n])

#ifdef UNLOADED
result nvmlInit_v2(void) { return DRIVER_NOT_LOADED; }
#else
result nvmlInit_v2(void) { return SUCCESS; }
#endif
result nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(result r) { (void)r; return "error"; }
result nvmlDeviceGetCount_v2(unsigned *count) { *count = DEVICES; return SUCCESS; }
result nvmlSystemGetDriverVersion(char *text, unsigned length) { snprintf(text, length, "570.86.15"); return SUCCESS; }
result nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12080; return SUCCESS; }
result nvmlDeviceGetHandleByIndex_v2(unsigned index, device *out) { *out = AT(index); return SUCCESS; }

result nvmlDeviceGetUUID(device d, char *text, unsigned length) {
  snprintf(text, length, d->number == 0 ? "GPU-0" : "MIG-%d", d->number);
  return SUCCESS;
}

result nvmlDeviceGetName(device d, char *text, unsigned length) {
  snprintf(text, length, d->number == 0 ? "NVIDIA Test" : "NVIDIA Test MIG 1g.10gb");
  return SUCCESS;
}

result nvmlDeviceGetMemoryInfo_v2(device d, memory_v2 *memory) {
  memory->total = (d->number == 0 ? 80ULL : 10ULL) << 30;
  memory->used = 2ULL << 30;
  memory->free = memory->total - memory->used;
  return SUCCESS;
}

result nvmlDeviceGetUtilizationRates(device d, utilization *rates) {
  (void)d;
  rates->gpu = 42;
  rates->memory = 7;
  return SUCCESS;
}

result nvmlDeviceGetTemperature(device d, int sensor, unsigned *celsius) {
  (void)d, (void)sensor;
  *celsius = 55;
  return SUCCESS;
}

/* The device does not tell it. */
result nvmlDeviceGetPowerUsage(device d, unsigned *milliwatts) { (void)d, (void)milliwatts; return NOT_SUPPORTED; }

#ifdef MIG
result nvmlDeviceGetMigMode(device d, unsigned *current, unsigned *pending) {
  (void)d;
  *current = *pending = 1;
  return SUCCESS;
}
result nvmlDeviceGetMaxMigDeviceCount(device d, unsigned *count) { (void)d; *count = 3; return SUCCESS; }
result nvmlDeviceGetMigDeviceHandleByIndex(device d, unsigned index, device *out) {
  (void)d;
  if (index == 1) return NOT_FOUND;
  *out = AT(index + 1);
  return SUCCESS;
}
#else
result nvmlDeviceGetMigMode(device d, unsigned *current, unsigned *pending) {
  (void)d, (void)current, (void)pending;
  return NOT_SUPPORTED;
}
#endif
