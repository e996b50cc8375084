/* A libnvidia-ml.so.1 whose machine is told by environment variables, so that the real pynvml
 * finds any machine on any machine. Signatures are those of NVIDIA's nvml.h.
 *
 * FAKE_GPUS   number of GPUs
 * FAKE_MIG    index of the GPU that has MIG enabled
 * FAKE_SLICES bits: which of its 7 places hold a slice
 * FAKE_LOST   index of a GPU that fell off the bus
 * FAKE_INIT   what initialisation returns
 * FAKE_SHARED chips without memory of their own; 1: they do not say, 2: they say 0
 *
 * FAKE_CLOCK  of the multiprocessors, MHz, of 2000
 * FAKE_WHY    bits of why clocks are low
 * FAKE_XIDS   Xid errors that come, two a look, each with the slice that it is of: "79:1 31:2"
 *
 * A handle is 100 * (GPU + 1), plus place + 1 for a slice.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { OK = 0, NOT_SUPPORTED = 3, NOT_FOUND = 6, TIMEOUT = 10, GPU_LOST = 15, PLACES = 7 };
typedef struct { unsigned long long total, free, used; } memory_t;

static int told(const char *name, int otherwise) {
    const char *text = getenv(name);
    return text ? atoi(text) : otherwise;
}
static int gpu(void *handle) { return (int)((intptr_t)handle / 100) - 1; }
static int place(void *handle) { return (int)((intptr_t)handle % 100) - 1; }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return told("FAKE_INIT", OK); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) {
    static char text[32];
    snprintf(text, sizeof text, "fake error %d", code);
    return text;
}
int nvmlDeviceGetCount_v2(unsigned *count) { *count = told("FAKE_GPUS", 0); return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if ((int)index == told("FAKE_LOST", -1)) return GPU_LOST;
    *handle = (void *)(intptr_t)(100 * (index + 1));
    return OK;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned size) {
    if (place(handle) < 0) snprintf(text, size, "GPU-%08x-0000", gpu(handle));
    else snprintf(text, size, "MIG-%08x-%04x", gpu(handle), place(handle));
    return OK;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned size) {
    snprintf(text, size, "NVIDIA Fake%s", place(handle) < 0 ? "" : " MIG 1g.10gb");
    return OK;
}
int nvmlDeviceGetMemoryInfo(void *handle, memory_t *memory) {
    if (told("FAKE_SHARED", 0) == 1) return NOT_SUPPORTED;
    memory->total = place(handle) < 0 ? 80ULL << 30 : 10ULL << 30;
    if (told("FAKE_SHARED", 0) == 2) memory->total = 0;
    memory->used = 0;
    memory->free = memory->total;
    return OK;
}
int nvmlDeviceGetMigMode(void *handle, unsigned *now, unsigned *next) {
    if (told("FAKE_MIG", -1) < 0) return NOT_SUPPORTED;
    *now = *next = gpu(handle) == told("FAKE_MIG", -1);
    return OK;
}
int nvmlDeviceGetMaxMigDeviceCount(void *handle, unsigned *count) {
    (void)handle;
    *count = PLACES;
    return OK;
}
int nvmlDeviceGetMigDeviceHandleByIndex(void *handle, unsigned index, void **slice) {
    if (!(told("FAKE_SLICES", 0) >> index & 1)) return NOT_FOUND;
    *slice = (void *)((intptr_t)handle + index + 1);
    return OK;
}

/* Figures of a whole GPU; a slice gives none. */
typedef struct { unsigned gpu, memory; } rates_t;

int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    unsigned number = 0, slice = 0;
    if (sscanf(uuid, "GPU-%08x-0000", &number) == 1) {
        if ((int)number >= told("FAKE_GPUS", 0)) return NOT_FOUND;
        if ((int)number == told("FAKE_LOST", -1)) return GPU_LOST;
        *handle = (void *)(intptr_t)(100 * (number + 1));
        return OK;
    }
    if (sscanf(uuid, "MIG-%08x-%04x", &number, &slice) != 2) return NOT_FOUND;
    *handle = (void *)(intptr_t)(100 * (number + 1) + slice + 1);
    return OK;
}
int nvmlDeviceGetClockInfo(void *handle, int type, unsigned *clock) {
    if (place(handle) >= 0 || type != 1) return NOT_SUPPORTED;
    *clock = told("FAKE_CLOCK", 2000);
    return OK;
}
int nvmlDeviceGetMaxClockInfo(void *handle, int type, unsigned *clock) {
    if (place(handle) >= 0 || type != 1) return NOT_SUPPORTED;
    *clock = 2000;
    return OK;
}
int nvmlDeviceGetUtilizationRates(void *handle, rates_t *rates) {
    if (place(handle) >= 0) return NOT_SUPPORTED;
    rates->gpu = 75;
    rates->memory = 10;
    return OK;
}
int nvmlDeviceGetPowerUsage(void *handle, unsigned *milliwatts) {
    if (place(handle) >= 0) return NOT_SUPPORTED;
    *milliwatts = 312500;
    return OK;
}
int nvmlDeviceGetTemperature(void *handle, int sensor, unsigned *celsius) {
    if (place(handle) >= 0 || sensor != 0) return NOT_SUPPORTED;
    *celsius = 71;
    return OK;
}
int nvmlDeviceGetCurrentClocksEventReasons(void *handle, unsigned long long *reasons) {
    if (place(handle) >= 0) return NOT_SUPPORTED;
    *reasons = told("FAKE_WHY", 0);
    return OK;
}
int nvmlDeviceGetPowerManagementLimit(void *handle, unsigned *milliwatts) {
    if (place(handle) >= 0) return NOT_SUPPORTED;
    *milliwatts = 700000;
    return OK;
}
int nvmlDeviceGetTotalEnergyConsumption(void *handle, unsigned long long *millijoules) {
    if (place(handle) >= 0) return NOT_SUPPORTED;
    *millijoules = 5500;
    return OK;
}

/* Xid errors come to the set that the whole GPU was registered with. */
typedef struct { void *device; unsigned long long type, data; unsigned slice, part; } event_t;
static void *registered;
static int taken;

int nvmlDeviceGetGpuInstanceId(void *handle, unsigned *id) { *id = place(handle) + 1; return OK; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(void *slice, void **handle) {
    *handle = (void *)(intptr_t)(100 * (gpu(slice) + 1));
    return OK;
}
int nvmlEventSetCreate(void **set) { *set = &registered; return OK; }
int nvmlDeviceRegisterEvents(void *handle, unsigned long long types, void *set) {
    if (place(handle) >= 0 || !getenv("FAKE_XIDS")) return NOT_SUPPORTED;
    if (set != &registered || types != 8) return NOT_FOUND;
    registered = handle;
    return OK;
}
int nvmlEventSetWait_v2(void *set, event_t *event, unsigned milliseconds) {
    const char *text = getenv("FAKE_XIDS");
    int skipped = 0, read = 0, xid = 0;
    if (set != &registered || milliseconds) return NOT_FOUND;
    if (++taken % 3 == 0) return TIMEOUT;
    for (; sscanf(text, " %d:%u%n", &xid, &event->slice, &read) == 2; text += read) {
        if (skipped++ < taken - 1 - taken / 3) continue;
        event->device = registered;
        event->type = 8;
        event->data = xid;
        return OK;
    }
    return TIMEOUT;
}
