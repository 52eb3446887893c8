// Numbers of the dtype T in which arrays are stored, and of A, in which is computed: float, beside
// double double.

typedef long long int64;

__device__ inline float number(float value) { return value; }
__device__ inline double number(double value) { return value; }
__device__ inline float number(__half value) { return __half2float(value); }
__device__ inline float number(__nv_bfloat16 value) { return __bfloat162float(value); }

__device__ inline void put(float &to, float value) { to = value; }
__device__ inline void put(double &to, double value) { to = value; }
__device__ inline void put(__half &to, float value) { to = __float2half(value); }
__device__ inline void put(__nv_bfloat16 &to, float value) { to = __float2bfloat16(value); }
