-- For wrk: which user each request asks for, and what is told when all is done.
--
-- Arguments: how many users there are, and an exponent. The n-th most popular user is asked for
-- 1/n^exponent as often as the first (Zipf's law); with 0 all are equal.

local threads = 0

function setup(thread)
   threads = threads + 1
   thread:set("number", threads)
end

function init(args)
   math.randomseed(number) -- the same users in each run
   local exponent = tonumber(args[2])
   local sum = 0
   upto = {}
   for n = 1, tonumber(args[1]) do
      sum = sum + n ^ -exponent
      upto[n] = sum
   end
end

function request()
   local at = math.random() * upto[#upto]
   local first, last = 1, #upto
   while first < last do
      local middle = math.floor((first + last) / 2)
      if upto[middle] < at then
         first = middle + 1
      else
         last = middle
      end
   end
   return wrk.format("GET", "/users/" .. first)
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format("figures %d %d %d %d %d %d\n",
      summary.requests, summary.duration,
      e.connect + e.read + e.write + e.status + e.timeout,
      latency:percentile(50), latency:percentile(99), latency:percentile(99.9)))
end
